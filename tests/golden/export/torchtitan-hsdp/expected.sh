#!/usr/bin/env bash
# llama3-70b on dgx-h100:nodes=16 (128 devices, 16 x 8), written by `towtank export` for torchtitan 0.3
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# tensor x: 4 ranks on one node, the first group: 0, 1, 2, 3
# data (with context): 16 ranks on 8 nodes, 2 of them on each, the first group: 0, 4, 8, 12, 16, 20, 24, 28,
#   ... 60
# shards of states: 4 ranks on 2 nodes, 2 of them on each, the first group: 0, 4, 8, 12
# replicas of shards: 4 ranks on 4 nodes, the first group: 0, 16, 32, 48
# pipeline: 2 ranks on 2 nodes, the first group: 0, 64
#
# note: batches count sequences; releases after 0.3 count tokens: num_tokens_per_microbatch_per_dp_rank =
#   16384, num_tokens_per_train_step = 1048576, max_context_length = 8192
set -euo pipefail
torchrun --nnodes 16 --nproc-per-node 8 --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-localhost}" --master-port "${MASTER_PORT:-29500}" \
    -m torchtitan.train --module expected --config towtank_plan "$@"
