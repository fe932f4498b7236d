#!/usr/bin/env python3
"""Entry point of the BIDS App: ``run.py BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL [options]``."""

import sys

from bids_harmonize.cli import main

if __name__ == "__main__":
    sys.exit(main())
