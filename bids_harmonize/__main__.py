"""``python -m bids_harmonize``: the same program as ``bids-harmonize`` and ``run.py``."""

from bids_harmonize.cli import program

if __name__ == "__main__":
    program()
