"""The former name of `benchmarks.large_datasets`, kept for `python -m benchmarks.scale`."""

import sys

from benchmarks.large_datasets import main

if __name__ == "__main__":
    sys.exit(main())
