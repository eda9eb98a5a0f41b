#!/usr/bin/env bash
# gpt-20b on perlmutter (32 devices, 8 x 4), written by `towtank export` for Megatron-AxoNN
#
# ranks fill nodes of 4 devices in order: rank r is on node r // 4
# tensor x: 2 ranks on one node, the first group: 0, 2
# tensor y: 2 ranks on one node, the first group: 0, 1
# tensor z: 4 ranks on 4 nodes, the first group: 0, 4, 8, 12
# data (with context): 2 ranks on 2 nodes, the first group: 0, 16
#
# note: the vocabulary comes from the tokenizer: 51200 entries were predicted
# note: the micro-batch of Megatron-AxoNN is that of a data-parallel group: 2 sequences a device x z = 4
set -euo pipefail
export CUDA_DEVICE_MAX_CONNECTIONS=1
MODEL_ARGS=(
    --num-layers 32
    --hidden-size 7168
    --ffn-hidden-size 28672
    --num-attention-heads 56
    --position-embedding-type learned_absolute
    --max-position-embeddings 2048
    --normalization LayerNorm
)
PARALLEL_ARGS=(
    --row-tensor-model-parallel-size 2
    --column-tensor-model-parallel-size 2
    --depth-tensor-model-parallel-size 4
    --pipeline-model-parallel-size 1
    --overlap-axonn-comm
    --overlap-axonn-reduce-scatter
    --overlap-axonn-all-gather
    --num-layers-for-caching-weights-in-depth-tensor-parallel-all-gather 8
    --layer-caching-level 2
    --distributed-backend nccl
)
TRAINING_ARGS=(
    --micro-batch-size 8
    --global-batch-size 64
    --seq-length 2048
    --recompute-granularity full
    --recompute-method uniform
    --recompute-num-layers 1
    --bf16
    --use-flash-attn
)
# Yours to replace or add: data, tokenizer, length of the run and optimizer are no part of a plan.
RUN_ARGS=(
    --make-vocab-size-divisible-by 128
    --train-iters 20
    --lr 0.0001
)
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export MASTER_ADDR MASTER_PORT=29500 WORLD_SIZE=32
srun --nodes=8 --ntasks=32 --ntasks-per-node=4 --distribution=block:block \
    bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python -u "$@"' _ \
    pretrain_gpt.py "${MODEL_ARGS[@]}" "${PARALLEL_ARGS[@]}" "${TRAINING_ARGS[@]}" "${RUN_ARGS[@]}" "$@"
