#!/usr/bin/env bash
# Run the tests that need transformers and torch, in an environment of their own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/scripts/environment.sh" "$work/venv" --editable "$root[dev,hf]"
cd "$root"
HF_HUB_OFFLINE=1 "$work/venv/bin/pytest" --quiet --numprocesses 0 -m hf
