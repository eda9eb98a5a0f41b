#!/usr/bin/env bash
# Run the fast tests with the lowest version of every direct dependency that pyproject.toml allows.
# Indirect dependencies are the newest: their lower bounds are not ours to state.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/scripts/environment.sh" "$work/tools" uv
"$root/scripts/environment.sh" "$work/venv" pip
uv=$work/tools/bin/uv
"$uv" pip compile --quiet --no-header --no-annotate --resolution lowest-direct --only-binary :all: \
    --python "$work/venv/bin/python" --extra dev --output-file "$work/lowest.txt" "$root/pyproject.toml"
tr '\n' ' ' <"$work/lowest.txt"
echo
"$uv" pip install --quiet --python "$work/venv/bin/python" --requirement "$work/lowest.txt"
"$uv" pip install --quiet --python "$work/venv/bin/python" --no-deps --editable "$root"
cd "$root"
"$work/venv/bin/pytest" --quiet --numprocesses 2 -p no:cacheprovider
