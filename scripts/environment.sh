#!/usr/bin/env bash
# environment.sh FOLDER WHAT...: create FOLDER as a virtual environment unless one works there, and let pip
# install WHAT into it under the pins of constraints-ci.txt. PYTHON names another interpreter.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "towtank needs Python 3.11 or newer, and ${PYTHON:-python3} is" \
        "$("${PYTHON:-python3}" --version 2>&1 || true)." \
        "Install one, or name it: make PYTHON=/path/to/python3.11 $*" >&2
    return 1
}

works() {
    "$folder/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if ! works; then
    python=$(find_python)
    echo "Building $folder with $("$python" --version)"
    "$python" -m venv --clear "$folder"
fi
"$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --constraint "$root/constraints-ci.txt" "$@"
