#!/usr/bin/env bash
# qwen3-30b-a3b on dgx-h100:nodes=8 (64 devices, 8 x 8), written by `towtank export` for Megatron Bridge 0.6
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# data (with context): 32 ranks on 4 nodes, 8 of them on each, the first group: 0, 1, 2, 3, 4, 5, 6, 7, ... 31
# pipeline: 2 ranks on 2 nodes, the first group: 0, 32
# expert: 8 ranks on one node, the first group: 0, 1, 2, 3, 4, 5, 6, 7
# expert data: 4 ranks on 4 nodes, the first group: 0, 8, 16, 24
#
# note: the shape of qwen3-30b-a3b does not name its activation function: SwiGLU is written, GeGLU costs the
#   same
# note: experts are predicted with equal load; a run's depends on its router
set -euo pipefail
export CUDA_DEVICE_MAX_CONNECTIONS=1
torchrun --nnodes 8 --nproc-per-node 8 --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
    expected.py "$@"
