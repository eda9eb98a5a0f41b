#!/usr/bin/env bash
# Let the software that plans are exported to parse the exports, in an environment of its own.
# megatron-core and megatron-bridge are only unpacked: they ask for Python 3.12 and for libraries of CUDA, and neither
# is needed to read arguments. torchtitan's data sets want older fsspec and huggingface_hub than transformers does.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/scripts/environment.sh" "$work/venv" --editable "$root[dev]" torch triton
install=("$work/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check)
grep --invert-match --extended-regexp '^(fsspec|huggingface_hub)==' "$root/constraints-ci.txt" >"$work/constraints.txt"
"${install[@]}" --constraint "$work/constraints.txt" torchtitan==0.3.0 deepspeed==0.19.8
"${install[@]}" --no-deps --ignore-requires-python --target "$work/megatron" --python-version 3.12 --only-binary :all: \
    megatron-core==0.19.2 megatron-bridge==0.6.2
cd "$root"
TOWTANK_MEGATRON="$work/megatron" "$work/venv/bin/pytest" --quiet --numprocesses 0 -m exports tests/exports
