"""Run the command line by `python -m towtank.cli`."""

import sys

from towtank.cli import main

if __name__ == "__main__":
    sys.exit(main())
