#!/bin/bash
# What one GPU can prove and record of the kernels, in under ten minutes on an H200: make gpu, or
# scripts/gpu.sh PYTHON FOLDER PROFILE [STEP...]. PYTHON holds torch for the GPU, triton, and what towtank needs.
# Steps: validate tune compare tiles bench triton profile. Those that fail are named in the end.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
folder=${2:-kernels/captures}
profile=${3:-h200-141gb}
shift $(($# < 3 ? $# : 3))
known="validate tune compare tiles bench triton profile"
steps=${*:-$known}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONWARNINGS=ignore
failed=()

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$python has no torch that can use a GPU here; name another: make gpu PYTHON=/path/to/python" >&2
    exit 2
fi
vendor=$("$python" -c 'import torch; print("amd" if torch.version.hip else "nvidia")')
device=$vendor-${profile%%-*}
mkdir -p "$folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

towtank() { "$python" -m towtank.cli "$@"; }

tuned() { # kernel, shape, dtype, seconds
    towtank kernels tune --device cuda --backend triton --profile "$profile" \
        --kernel "$1" --shape "$2" --dtype "$3" --budget "$4s"
}

validate() { towtank kernels validate --device cuda; }
tune() {
    local wrong=0
    tuned matmul 8192x8192x8192 bf16 12 || wrong=1
    tuned matmul 4096x4096x4096 bf16 8 || wrong=1
    tuned attention 2x8192x32x32x128 bf16 8 || wrong=1
    tuned attention_backward 2x8192x32x32x128 bf16 8 || wrong=1
    tuned fp8_matmul 8192x8192x8192 fp8 8 || wrong=1
    return $wrong
}
compare() { # a capture is whole or not there
    towtank kernels compare --device cuda --json > "$scratch/compare.json" || return 1
    cat "$scratch/compare.json"
    mv "$scratch/compare.json" "$folder/$device.compare.json"
}
tiles() {
    "$python" -m towtank.autotune.tiles.gpu_captures --profile "$profile" --out "$folder/$device.triton.csv.gz"
}
bench() { towtank kernels bench --device cuda --out "$folder/$device.bench.csv"; }
triton() { towtank kernels bench --quick --device cuda --backend triton --out "$folder/$device.triton.bench.csv"; }
profile() {
    towtank kernels profile "$folder/$device.bench.csv" --device "$profile" --out "$scratch/profile"
}

for step in $steps; do
    case " $known " in
        *" $step "*) ;;
        *) echo "no step is named $step; known: $known" >&2 && exit 2 ;;
    esac
done
for step in $steps; do
    start=$SECONDS
    echo "== $step"
    "$step" || failed+=("$step")
    echo "   $((SECONDS - start)) s"
done
towtank kernels list --device cuda
echo "$SECONDS s in all; failed: ${failed[*]:-nothing}"
[ ${#failed[@]} -eq 0 ]
