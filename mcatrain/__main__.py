"""``python -m mcatrain``: the command line."""

import sys

from mcatrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
