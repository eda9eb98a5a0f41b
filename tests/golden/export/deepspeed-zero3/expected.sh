#!/usr/bin/env bash
# llama3-8b on dgx-a100:nodes=4 (32 devices, 4 x 8), written by `towtank export` for DeepSpeed 0.19
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# data (with context): 32 ranks on 4 nodes, 8 of them on each, the first group: 0, 1, 2, 3, 4, 5, 6, 7, ... 31
#
# note: train.py is your program: 32 layers, hidden 4096, 32 heads, 8 key-value heads, feed-forward 14336,
#   vocabulary 128256; sequences of 8192 tokens, gradient checkpointing on
set -euo pipefail
torchrun --nnodes 4 --nproc-per-node 8 --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
    train.py --deepspeed --deepspeed_config expected.json "$@"
