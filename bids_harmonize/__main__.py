"""``python -m bids_harmonize``: the same program as ``bids-harmonize`` and ``run.py``."""

import sys

from bids_harmonize.cli import main

if __name__ == "__main__":
    sys.exit(main())
