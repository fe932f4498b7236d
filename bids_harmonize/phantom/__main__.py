"""``python -m bids_harmonize.phantom``: write the phantom dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bids_harmonize.errors import HarmonizeError, UsageError
from bids_harmonize.phantom.dataset import write_phantom


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see --help")


def _parser() -> _Parser:
    parser = _Parser(prog="python -m bids_harmonize.phantom", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write the dataset")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other heads (default: 0)")
    parser.add_argument("--sites", type=int, default=4, help="number of sites (default: 4)")
    parser.add_argument("--people", type=int, default=2, help="participants per site (default: 2)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the phantom from the command line; return the exit code."""
    try:
        options = _parser().parse_args(arguments)
        folder = write_phantom(
            options.folder.expanduser(),
            seed=options.seed,
            sites=options.sites,
            people_per_site=options.people,
        )
    except HarmonizeError as error:
        print(f"bids_harmonize.phantom: error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"the phantom dataset is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
