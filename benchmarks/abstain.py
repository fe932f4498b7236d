"""The former name of `benchmarks.ood_detection`, kept for `python -m benchmarks.abstain`."""

import sys

from benchmarks.ood_detection import main

if __name__ == "__main__":
    sys.exit(main())
