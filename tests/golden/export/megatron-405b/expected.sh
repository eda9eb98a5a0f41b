#!/usr/bin/env bash
# llama3.1-405b on dgx-h100:nodes=2048 (16,384 devices, 2,048 x 8), written by `towtank export` for
#   Megatron-LM as in megatron-core 0.19
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# tensor x: 8 ranks on one node, the first group: 0, 1, 2, 3, 4, 5, 6, 7
# data (with context): 128 ranks on 128 nodes, the first group: 0, 8, 16, 24, 32, 40, 48, 56, ... 1016
# pipeline: 16 ranks on 16 nodes, the first group: 0, 1024, 2048, 3072, 4096, 5120, 6144, 7168, ... 15360
#
# note: the shape of llama3.1-405b does not name its activation function: SwiGLU is written, GeGLU costs the
#   same
# note: the prediction overlaps sends between stages; Megatron-Core does so in the interleaved schedule only
set -euo pipefail
export CUDA_DEVICE_MAX_CONNECTIONS=1
MODEL_ARGS=(
    --num-layers 126
    --hidden-size 16384
    --ffn-hidden-size 53248
    --num-attention-heads 128
    --group-query-attention
    --num-query-groups 8
    --position-embedding-type rope
    --max-position-embeddings 8192
    --normalization RMSNorm
    --swiglu
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --attention-dropout 0.0
    --hidden-dropout 0.0
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 8
    --sequence-parallel
    --context-parallel-size 1
    --pipeline-model-parallel-size 16
    --pipeline-model-parallel-layout 'Et*7|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*8|t*7L'
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
)
TRAINING_ARGS=(
    --micro-batch-size 1
    --global-batch-size 2048
    --seq-length 8192
    --recompute-granularity selective
    --bf16
    --accumulate-allreduce-grads-in-fp32
)
# Yours to replace: data, length of the run and optimizer are no part of a plan.
RUN_ARGS=(
    --vocab-size 128256
    --make-vocab-size-divisible-by 128
    --tokenizer-type NullTokenizer
    --mock-data
    --train-iters 20
    --lr 0.0001
)
torchrun --nnodes 2048 --nproc-per-node 8 --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
    pretrain_gpt.py "${MODEL_ARGS[@]}" "${PARALLEL_ARGS[@]}" "${TRAINING_ARGS[@]}" "${RUN_ARGS[@]}" "$@"
