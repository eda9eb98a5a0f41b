"""Command that fits the rates of stacks and devices: `python -m towtank.validation.fit [--write]`.

It prints the fit (`factors`) and how sure it is (`confidence`); with `--write` both go into the file that predictions
read.
"""

import sys
from collections.abc import Sequence

from towtank.hardware_profiles.calibration import FILE
from towtank.validation.confidence import to_text
from towtank.validation.evaluate import progress_bar
from towtank.validation.rates import fitted_runs, observe
from towtank.validation.rows import RUNS, read_runs


def main(arguments: Sequence[str]) -> int:
    """Print the fit to the shipped runs; `--write` puts it into force."""
    if set(arguments) - {"--write"}:
        print("usage: python -m towtank.validation.fit [--write]", file=sys.stderr)
        return 2
    text = to_text(observe(fitted_runs(read_runs(RUNS)), progress=progress_bar))
    print(text, end="")
    if "--write" in arguments:
        FILE.write_text(text, encoding="utf-8")
        print(f"\nwritten: {FILE}; `make validate` brings tables and intervals up to date", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
