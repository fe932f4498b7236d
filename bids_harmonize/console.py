"""What all commands share: arguments of one kind, signals, and exit codes.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bids_harmonize.errors import BadData, HarmonizeError, InputOutputError, UsageError, lacks_memory
from bids_harmonize.version import version

# Shells report a process that a signal ended as 128 + its number.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

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
            self.error("-- was given twice; write ./-- for a file of that name")
        for argument in args:
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument.removesuffix('=--')}: expected a value, not --")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        hint = self._hint if "are required:" in message else ""
        raise UsageError(f"{message}{hint}; see {self.prog} --help")


def guard(program: str, work: Callable[[], int]) -> int:
    """Do the work of a command and return its exit code; what goes wrong is told in one sentence."""
    # Where the locale has no such letters, or a file's name is not UTF-8, they are written as escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Matrices are small here: more threads make numpy slower, and last digits depend on their number.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        with _signals_unwind():
            code = _until_exit(work)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except HarmonizeError as error:
        return _complain(program, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain(program, "interrupted", INTERRUPTED)
    except _Terminated:
        return _complain(program, "terminated", TERMINATED)
    except (MemoryError, ImportError) as error:
        if not lacks_memory(error):
            raise
        return _complain(program, "there is not enough memory; give the process more", BadData.exit_code)
    except BrokenPipeError:
        _settle_stdout()
        sentence = "standard output was closed before the end"
        return _complain(program, sentence, InputOutputError.exit_code)
    except OSError as error:
        _settle_stdout()
        where = f": {error.filename}" if error.filename else ""
        return _complain(program, f"{error.strerror or error}{where}", InputOutputError.exit_code)


def add(group: argparse._ArgumentGroup, *names: str, aliases: Sequence[str] = (), **settings: Any) -> None:
    """Add an option under its names and, hidden from the help, under its aliases and underscore spellings."""
    action = group.add_argument(*names, **settings)
    underscored = (f"--{name[2:].replace('-', '_')}" for name in (*names, *aliases) if name.startswith("--"))
    hidden = [name for name in (*aliases, *underscored) if name not in names]
    if hidden:
        group.add_argument(*hidden, **settings | {"dest": action.dest, "help": argparse.SUPPRESS})


def add_device(group: argparse._ArgumentGroup) -> None:
    """Add the option that says where a scan is computed."""
    add(
        group,
        "--device",
        metavar="DEVICE",
        type=device,
        default="auto",
        help="auto, cpu, cuda or cuda:N; auto is cuda where there is one (default: auto)",
    )


def add_threads(group: argparse._ArgumentGroup, default: str) -> None:
    """Add the option that says with how many threads."""
    add(
        group,
        "--omp-nthreads",
        metavar="N",
        type=positive,
        help=f"number of threads for one scan (default: {default})",
    )


def add_save_transform(group: argparse._ArgumentGroup) -> None:
    """Add the option that asks for the tone curves."""
    add(
        group,
        "--save-transform",
        action="store_true",
        help="also write the tone curves of a scan, from which the result can be made again",
    )


def add_out_of_distribution(group: argparse._ArgumentGroup, default: str, meaning: str) -> None:
    """Add the option that says what to do with scans that the model is not meant for."""
    add(
        group,
        "--out-of-distribution",
        metavar="ACTION",
        choices=OUT_OF_DISTRIBUTION,
        default=default,
        help="what to do with a scan unlike what the model is meant for, such as FLAIR or CT: "
        f"{meaning} (default: {default})",
    )


def add_information(group: argparse._ArgumentGroup, program: str) -> None:
    """Add the options that say how much is told, and those that only print a text."""
    loudness = group.add_mutually_exclusive_group()
    add(
        loudness,
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="also say how every scan is done: model, score, files; -vv: and where in the code a scan failed",
    )
    add(loudness, "-q", "--quiet", action="store_true", help="say nothing but warnings and errors")
    add(
        group,
        "--version",
        action="version",
        version=f"{program} {version()}",
        help="print the version and exit",
    )
    add(group, "-h", "--help", action="help", help="print this text and exit")


def verbosity(given: argparse.Namespace) -> int:
    """How often ``-v`` was given, or -1 for ``-q``."""
    return -1 if given.quiet else int(given.verbose)


def path(text: str) -> Path:
    """An argument that names a file or folder: absolute, the home folder expanded, symbolic links kept."""
    # An unset shell variable gives an empty argument, which would be the current folder.
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"the home folder in {text!r} is not known; write ./~ for a file of that name"
        )
    try:
        # Not resolve(), nor normpath(): behind a symbolic link, `..` is another folder.
        return Path(expanded).absolute()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is relative to a folder that is gone") from error


def model(text: str) -> str:
    """An argument that is the name of a bundled model, or the path of a weight file."""
    is_path = "/" in text or text.startswith("~") or text.endswith(".safetensors")
    if is_path or not text:
        return str(path(text))
    return text


def device(text: str) -> str:
    """An argument that is a device of PyTorch, or ``auto``."""
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:N")
    return text


def positive(text: str) -> int:
    """An argument that is a whole number from 1 up."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def whole(text: str) -> int:
    """An argument that is a whole number from 0 up."""
    # int() alone would take 1_0 and the digits of every script, and refuses more than 4300 of them.
    if not re.fullmatch("[0-9]{1,30}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def default_cpus(environ: Mapping[str, str]) -> int:
    """Return the number of CPUs this process may use: what SLURM allots, else the affinity mask."""
    try:
        return positive(environ["SLURM_CPUS_PER_TASK"].strip())
    except (KeyError, argparse.ArgumentTypeError):
        pass
    # macOS has no affinity masks.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _until_exit(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as stop:
        # --help and --version have printed what they print.
        return int(stop.code or 0)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM unwind the stack as SIGINT does, so that half-written files are removed.

    Without it, the first process of a container, which the kernel shields from unhandled signals, would
    ignore ``docker stop`` until it is killed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends: dict[int, type[BaseException]] = {signal.SIGTERM: _Terminated}
    # A background job ignores it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        ends[signal.SIGINT] = KeyboardInterrupt
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise ends[number]

    before = {number: signal.signal(number, stop) for number in ends}
    try:
        yield
    except Exception:
        # While a library is loaded, it may make an error of its own of it.
        if received:
            raise ends[received[0]] from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _complain(program: str, sentence: str, code: int) -> int:
    if sys.stderr is not None:
        print(f"{program}: error: {sentence}", file=sys.stderr)
    return code


def _settle_stdout() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python flushes once more when it exits, and would fail there again, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
