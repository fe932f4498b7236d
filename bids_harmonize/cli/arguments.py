"""What the commands share: their parser, options, and types of arguments.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bids_harmonize.errors import UsageError
from bids_harmonize.version import version

OUT_OF_DISTRIBUTION = ("skip", "harmonize", "fail")

_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` and takes no abbreviations.

    Parameters
    ----------
    program
        Name of the command.
    hint
        What to add where positional arguments are missing.
    """

    def __init__(self, program: str, *, hint: str = "", **settings: Any) -> None:
        super().__init__(prog=program, allow_abbrev=False, add_help=False, **settings)
        self._hint = f" ({hint})" if hint else ""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, but refuse ``--option=--`` and a second ``--``, which argparse takes for no value at all."""
        if list(args).count("--") > 1:
            self.error("-- stands twice; write ./-- for a file of that name")
        for argument in args:
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument.removesuffix('=--')}: expected a value, not --")
        return super().parse_known_args(args, namespace)

    @property
    def actions(self) -> tuple[argparse.Action, ...]:
        """All arguments, those hidden from the help too."""
        return tuple(self._actions)

    def error(self, message: str) -> NoReturn:
        hint = self._hint if "are required:" in message else ""
        raise UsageError(f"{message}{hint}; see {self.prog} --help")


def add(group: argparse._ArgumentGroup, *names: str, aliases: Sequence[str] = (), **settings: Any) -> None:
    """Add an option under its names and, hidden from the help, under its aliases and underscore spellings."""
    action = group.add_argument(*names, **settings)
    underscored = (f"--{name[2:].replace('-', '_')}" for name in (*names, *aliases) if name.startswith("--"))
    hidden = [name for name in (*aliases, *underscored) if name not in names]
    if hidden:
        group.add_argument(*hidden, **settings | {"dest": action.dest, "help": argparse.SUPPRESS})


class _ExtendUnique(argparse.Action):
    """Collects values in a tuple, in the order in which they are first given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(
            namespace, self.dest, tuple(dict.fromkeys((*getattr(namespace, self.dest, ()), *(values or ()))))
        )


def add_list(group: argparse._ArgumentGroup, *names: str, **settings: Any) -> None:
    """Add an option that takes a list and may be repeated; the result is a tuple without duplicates."""
    add(group, *names, nargs="+", action=_ExtendUnique, default=(), **settings)


def add_device(group: argparse._ArgumentGroup) -> None:
    """Add the option that says where a scan is computed."""
    add(
        group,
        "--device",
        metavar="DEVICE",
        type=device,
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto uses a GPU if one is available (default: auto)",
    )


def add_threads(group: argparse._ArgumentGroup, default: str) -> None:
    """Add the option for the number of threads."""
    add(
        group,
        "--omp-nthreads",
        metavar="N",
        type=positive_int,
        help=f"number of threads for one scan (default: {default})",
    )


def add_save_transform(group: argparse._ArgumentGroup) -> None:
    """Add the option that writes the tone curves."""
    add(
        group,
        "--save-transform",
        action="store_true",
        help="also write the tone curves of each scan, from which the result can be reproduced",
    )


def add_pool(group: argparse._ArgumentGroup, belonging: str) -> None:
    """Add the option for a pool that was formed before."""
    add(
        group,
        "--pool",
        metavar="PATH",
        type=path,
        help=f"a pool that was formed before, a file in the folder pools, {belonging}: the same edit for "
        "the next visit (default: none)",
    )


def add_out_of_distribution(group: argparse._ArgumentGroup, default: str, meaning: str) -> None:
    """Add the option for scans that look out of distribution."""
    add(
        group,
        "--out-of-distribution",
        metavar="ACTION",
        choices=OUT_OF_DISTRIBUTION,
        default=default,
        help="what to do with a scan that looks out of distribution for the model, such as FLAIR or CT: "
        f"{meaning} (default: {default})",
    )


def add_information(group: argparse._ArgumentGroup, program: str) -> None:
    """Add the options for the verbosity, and those that only print a text."""
    verbosity = group.add_mutually_exclusive_group()
    add(
        verbosity,
        "-v",
        "--verbose",
        dest="verbosity",
        action="count",
        default=0,
        help="also log model, score and output files of each scan; -vv: also the traceback of a failure",
    )
    add(
        verbosity,
        "-q",
        "--quiet",
        dest="verbosity",
        action="store_const",
        const=-1,
        help="log warnings and errors only",
    )
    add(
        group,
        "--version",
        action="version",
        version=f"{program} {version()}",
        help="print the version and exit",
    )
    add(group, "-h", "--help", action="help", help="print this text and exit")


def path(text: str) -> Path:
    """Parse the name of a file or folder: make it absolute, expand the home folder, keep symbolic links."""
    # An unset shell variable makes an empty argument, which would mean the current folder.
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"the home folder in {text!r} is not known; write ./~ for a file of that name"
        )
    try:
        # resolve() and normpath() would drop `..`, which behind a symbolic link is another folder.
        return Path(expanded).absolute()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is relative to a folder that no longer exists") from error


def model(text: str) -> str:
    """Parse the name of a bundled model, or the path of a weight file."""
    is_path = "/" in text or text.startswith("~") or text.endswith(".safetensors")
    if is_path or not text:
        return str(path(text))
    return text


def device(text: str) -> str:
    """Parse the name of a device of PyTorch, or ``auto``."""
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")
    return text


def positive_int(text: str) -> int:
    """Parse a whole number from 1 up."""
    number = non_negative_int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def non_negative_int(text: str) -> int:
    """Parse a whole number from 0 up."""
    # int() alone would accept 1_0 and the digits of every script, and raise for more than 4300 of them.
    if not re.fullmatch("[0-9]{1,30}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def default_cpus(environ: Mapping[str, str]) -> int:
    """Return the number of CPUs that this process may use: by Slurm, else by the affinity mask."""
    try:
        return positive_int(environ["SLURM_CPUS_PER_TASK"].strip())
    except (KeyError, argparse.ArgumentTypeError):
        pass
    # macOS has no affinity masks.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
