"""The command line: arguments in, exit codes out.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from bids_harmonize.cli.dataset import main, program

__all__ = ["main", "program"]
