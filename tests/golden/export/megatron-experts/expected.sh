#!/usr/bin/env bash
# mixtral-8x7b on dgx-h100:nodes=8 (64 devices, 8 x 8), written by `towtank export` for Megatron-LM as in
#   megatron-core 0.19
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# tensor x: 2 ranks on one node, the first group: 0, 1
# data (with context): 32 ranks on 8 nodes, 4 of them on each, the first group: 0, 2, 4, 6, 8, 10, 12, 14, ...
#   62
# expert: 8 ranks on one node, the first group: 0, 1, 2, 3, 4, 5, 6, 7
# expert data: 8 ranks on 8 nodes, the first group: 0, 8, 16, 24, 32, 40, 48, 56
#
# note: predicted for the stack megatron-core-flex; Megatron-LM as in megatron-core 0.19 is megatron-core
#   here, and what the two do by themselves may differ: compare with towtank predict --stack megatron-core
# note: the shape of mixtral-8x7b does not name its activation function: SwiGLU is written, GeGLU costs the
#   same
# note: experts are predicted with equal load; a run's depends on its router
set -euo pipefail
export CUDA_DEVICE_MAX_CONNECTIONS=1
MODEL_ARGS=(
    --num-layers 32
    --hidden-size 4096
    --ffn-hidden-size 14336
    --num-attention-heads 32
    --group-query-attention
    --num-query-groups 8
    --position-embedding-type rope
    --max-position-embeddings 4096
    --normalization RMSNorm
    --swiglu
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --attention-dropout 0.0
    --hidden-dropout 0.0
    --num-experts 8
    --moe-router-topk 2
    --moe-ffn-hidden-size 14336
    --moe-grouped-gemm
    --moe-token-dispatcher-type flex
)
PARALLEL_ARGS=(
    --tensor-model-parallel-size 2
    --sequence-parallel
    --context-parallel-size 1
    --pipeline-model-parallel-size 1
    --expert-model-parallel-size 8
    --expert-tensor-parallel-size 1
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
)
TRAINING_ARGS=(
    --micro-batch-size 2
    --global-batch-size 256
    --seq-length 4096
    --recompute-granularity full
    --recompute-method uniform
    --recompute-num-layers 1
    --bf16
    --fp8-format hybrid
    --fp8-recipe tensorwise
    --accumulate-allreduce-grads-in-fp32
)
# Yours to replace: data, length of the run and optimizer are no part of a plan.
RUN_ARGS=(
    --vocab-size 32000
    --make-vocab-size-divisible-by 128
    --tokenizer-type NullTokenizer
    --mock-data
    --train-iters 20
    --lr 0.0001
)
torchrun --nnodes 8 --nproc-per-node 8 --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
    pretrain_gpt.py "${MODEL_ARGS[@]}" "${PARALLEL_ARGS[@]}" "${TRAINING_ARGS[@]}" "${RUN_ARGS[@]}" "$@"
