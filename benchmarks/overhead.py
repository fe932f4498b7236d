"""The former name of `benchmarks.dispatch_overhead`, kept for `python -m benchmarks.overhead`."""

import sys

from benchmarks.dispatch_overhead import main

if __name__ == "__main__":
    sys.exit(main())
