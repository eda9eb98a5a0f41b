#!/usr/bin/env bash
# Build source archive and wheel, install the wheel into an empty environment, use it from another folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/.venv/bin/python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || {
    cat "$work/build.log"
    exit 1
}
wheel=$(echo "$work"/dist/*.whl)
"$root/.venv/bin/python" "$root/scripts/wheel_contents.py" "$wheel" "$root"

"$root/scripts/environment.sh" "$work/venv" "$wheel"
cd "$work"
export PATH="$work/venv/bin:$PATH"
python - <<'CHECK'
import importlib.util
import towtank

assert importlib.util.find_spec("kernels") is None, "a bare `kernels` landed in site-packages"
assert "site-packages" in towtank.__file__, towtank.__file__
CHECK
towtank --version
towtank machines >machines.txt
echo "towtank machines: $(wc -l <machines.txt) lines"
towtank tune --model tiny-llama --machine dgx-h100:nodes=1 --global-batch 16 --stack megatron-core >tune.txt
towtank export plan.yaml --to megatron -o train.sh
towtank report plan.yaml
towtank predict --model megatron-1t --machine selene --stack megatron-2021 --set \
    tensor_x=8,pipeline=64,data=6,micro_batch=1,global_batch=3072,recompute=full,precision=fp16
