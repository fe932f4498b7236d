"""How a command runs as a process: errors, signals and exit codes."""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from bids_harmonize.errors import (
    OUT_OF_MEMORY,
    BadData,
    HarmonizeError,
    InputOutputError,
    is_out_of_memory,
)
from bids_harmonize.execution.signals import after_imports

# Shells report a process that a signal ended as 128 + its number.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def run_cli(program: str, work: Callable[[], int]) -> int:
    """Run a command and return its exit code; an error is printed in one line."""
    # Characters that the locale does not have, or of file names that are not UTF-8, are written as escapes.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Matrices are small here: more threads make numpy slower, and the last digits depend on their number.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        with _signals_unwind():
            code = _until_exit(work)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except HarmonizeError as error:
        return _print_error(program, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _print_error(program, "interrupted", INTERRUPTED)
    except _Terminated:
        return _print_error(program, "terminated", TERMINATED)
    except (MemoryError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        return _print_error(program, OUT_OF_MEMORY, BadData.exit_code)
    except BrokenPipeError:
        _redirect_stdout_to_null()
        message = "standard output was closed before the end"
        return _print_error(program, message, InputOutputError.exit_code)
    except OSError as error:
        _redirect_stdout_to_null()
        where = f": {error.filename}" if error.filename else ""
        return _print_error(program, f"{error.strerror or error}{where}", InputOutputError.exit_code)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, at once if nothing else runs in it.

    To take all modules of torch apart, as Python does at its end, takes half a second.
    """
    if "torch" in sys.modules and threading.active_count() == 1:
        logging.shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)


def leave_removed_folder() -> None:
    """Leave a current folder that was removed, from which libraries cannot be loaded.

    Arguments must be parsed before, since relative paths mean another folder then.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir(os.sep)


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _until_exit(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as stop:
        # argparse exits after --help and --version.
        return int(stop.code or 0)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM unwind the stack as SIGINT does, so that half-written files are removed.

    Without a handler, the first process of a container, which the kernel shields from unhandled signals,
    would ignore ``docker stop`` until it is killed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends: dict[int, type[BaseException]] = {signal.SIGTERM: _Terminated}
    # A background job of a shell ignores SIGINT, and must go on to do so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        ends[signal.SIGINT] = KeyboardInterrupt
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise ends[number]

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        unwind(number, frame)

    unwind = after_imports(stop)
    alarm = signal.getsignal(signal.SIGALRM) or signal.SIG_DFL
    before = {number: signal.signal(number, remember) for number in ends}
    try:
        yield
    except Exception:
        # A library that is being loaded may turn the signal into an error of its own.
        if received:
            raise ends[received[0]] from None
        raise
    finally:
        if received:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_error(program: str, message: str, code: int) -> int:
    if sys.stderr is not None:
        print(f"{program}: error: {message}", file=sys.stderr)
    return code


def _redirect_stdout_to_null() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python flushes once more on exit, and would fail again there, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
