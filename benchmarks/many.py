"""The former name of `benchmarks.throughput`, kept for `python -m benchmarks.many`."""

import sys

from benchmarks.throughput import main

if __name__ == "__main__":
    sys.exit(main())
