"""The program in processes of its own that start at once, forked from a server that has loaded the modules.

So a fault meets the program at work and not Python while it loads torch, and a start takes hundredths of a
second instead of seconds. What happens to such a process is real: its signals, its limits, its files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

import torch

from bids_harmonize.cli.dataset import main
from tests.helpers.toy_datasets import ROOT, Result, common_options

# Events of Python's audit hooks that touch files.
TOUCHES = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"})
PRELOADED = (
    "bids_harmonize.commands.participant",
    "bids",
    "bids_harmonize.commands.dispatch",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib.image",
    "matplotlib.pyplot",
)
PATIENCE = 300

_started: list[ForkServerProcess] = []
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([*PRELOADED])

Fault = Callable[[], None]


@dataclass(frozen=True)
class AtTouch:
    """A signal to the process itself, just before it touches a file in the folder for the n-th time.

    Only touches count that hold `what`, such as ``open sub-01.html``: the event, and the end of the path.
    """

    number: int
    folder: Path
    signal: int
    what: str = " "

    def __call__(self) -> None:
        left = self.number

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            path = _touched(event, arguments, self.folder)
            if path is not None and _told(event, path, self.what):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), self.signal)

        sys.addaudithook(hook)


@dataclass(frozen=True)
class Counted:
    """No fault: every touch of a file in the folder, one line each."""

    folder: Path
    lines: Path

    def __call__(self) -> None:
        lines = os.open(self.lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if _touched(event, arguments, self.folder) is not None:
                os.write(lines, f"{event} {arguments[0]!r}\n".encode())

        sys.addaudithook(hook)


def _touched(event: str, arguments: tuple[object, ...], folder: Path) -> str | None:
    if event not in TOUCHES or not isinstance(arguments[0], str | bytes | os.PathLike):
        return None
    path = os.fsdecode(arguments[0])
    return path if path.startswith(f"{folder}/") else None


def _told(event: str, path: str, what: str) -> bool:
    wanted, _, end = what.partition(" ")
    return wanted in ("", event) and path.endswith(end)


@dataclass(frozen=True)
class Running:
    """A process that was started, and the files that it says things into."""

    process: ForkServerProcess
    out: Path
    err: Path

    def wait(self) -> Result:
        """The end; the code is negative if a signal brought it."""
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"still running after {PATIENCE} s: {self.err.read_text()}")
        return Result(code=code, out=self.out.read_text(), err=self.err.read_text())


def start(folder: Path, *arguments: str | Path, fault: Fault | None = None) -> Running:
    """Start the program in a folder, from which its arguments may be relative."""
    number = len(list(folder.glob("said-*.out")))
    out, err = (folder / f"said-{number}.{stream}" for stream in ("out", "err"))
    out.touch(exist_ok=False)
    told = [*map(str, arguments), *common_options(arguments)]
    process = _forks.Process(target=_run, args=(folder, told, out, err, fault))
    with mock.patch.dict(os.environ, {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}):
        process.start()
    _started.append(process)
    return Running(process=process, out=out, err=err)


def end_all() -> None:
    """End what a test that failed left running or standing still."""
    while _started:
        process = _started.pop()
        process.kill()
        process.join()


def hold(running: Running) -> None:
    """Wait until a process has stopped itself."""
    end = time.monotonic() + PATIENCE
    while _state(running.process) != "T":
        assert running.process.is_alive(), f"it did not stop: {running.err.read_text()}"
        assert time.monotonic() < end, f"it did not stop in {PATIENCE} s"
        time.sleep(0.01)


def go_on(running: Running) -> Result:
    """Let a process that was held go on to its end."""
    os.kill(running.process.pid or 0, signal.SIGCONT)
    return running.wait()


def _state(process: ForkServerProcess) -> str:
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def apart(folder: Path, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start the program as users do, with all that it loads."""
    code = "import sys; from bids_harmonize.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), *common_options(arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str | Path, fault: Fault | None = None) -> Result:
    """Start the program and wait for its end."""
    return start(folder, *arguments, fault=fault).wait()


def _run(folder: Path, arguments: list[str], out: Path, err: Path, fault: Fault | None) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), stream.fileno())
    os.chdir(folder)
    torch.set_num_threads(1)
    code = 1
    try:
        if fault is not None:
            fault()
        code = main(arguments)
    except BaseException:
        # The traceback is printed as a user would see it.
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # The process ends at once, because multiprocessing's own clean-up is no part of the program.
        os._exit(code)
