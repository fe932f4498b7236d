"""What all commands share."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bids_harmonize.cli import arguments, process

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("value", "cpus"), [("3", 3), (" 5\n", 5)])
def test_slurm_gives_the_cpus(value: str, cpus: int) -> None:
    assert arguments.default_cpus({"SLURM_CPUS_PER_TASK": value}) == cpus


@pytest.mark.parametrize("value", ["", "0", "-4", "many", "2(x3)", "1e3"])
def test_garbage_from_slurm_is_passed_over(value: str) -> None:
    assert arguments.default_cpus({"SLURM_CPUS_PER_TASK": value}) == arguments.default_cpus({})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_the_affinity_mask_gives_the_cpus() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); from bids_harmonize.cli import arguments; "
    code += "print(arguments.default_cpus({}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, process.INTERRUPTED, "interrupted"),
        (signal.SIGTERM, process.TERMINATED, "terminated"),
    ],
)
def test_a_library_that_makes_an_error_of_a_signal_does_not_hide_it(
    capsys: pytest.CaptureFixture[str], number: int, code: int, word: str
) -> None:
    """As numpy does while it is loaded."""

    def load() -> int:
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise ImportError("cannot load module more than once per process") from error
        return 0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert process.run_cli("program", load) == code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == f"program: error: {word}\n"


def test_a_signal_waits_until_a_library_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch aborts the process when Python raises while it is loaded."""
    lines = (
        "import os, signal, time",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "time.sleep(0.2)",
        "loaded = True",
    )
    (tmp_path / "slow_library.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    loaded = []

    def load() -> int:
        loaded.append(importlib.import_module("slow_library").loaded)
        time.sleep(60)
        return 0

    before = signal.getsignal(signal.SIGALRM)
    assert process.run_cli("program", load) == process.TERMINATED
    assert loaded == [True]
    assert capsys.readouterr().err == "program: error: terminated\n"
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_removed_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process.leave_removed_folder()
    assert Path.cwd() == tmp_path
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    process.leave_removed_folder()
    assert Path.cwd() == Path("/")
