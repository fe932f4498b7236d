#!/usr/bin/env python3
"""Entry point of the BIDS App: ``run.py BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL [options]``."""

from bids_harmonize.cli import program

if __name__ == "__main__":
    program()
