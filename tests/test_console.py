"""What all commands share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bids_harmonize import console

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("value", "cpus"), [("3", 3), (" 5\n", 5)])
def test_slurm_gives_the_cpus(value: str, cpus: int) -> None:
    assert console.default_cpus({"SLURM_CPUS_PER_TASK": value}) == cpus


@pytest.mark.parametrize("value", ["", "0", "-4", "many", "2(x3)", "1e3"])
def test_garbage_from_slurm_is_passed_over(value: str) -> None:
    assert console.default_cpus({"SLURM_CPUS_PER_TASK": value}) == console.default_cpus({})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_the_affinity_mask_gives_the_cpus() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); from bids_harmonize import console; "
    code += "print(console.default_cpus({}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, console.INTERRUPTED, "interrupted"),
        (signal.SIGTERM, console.TERMINATED, "terminated"),
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
        assert console.guard("program", load) == code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == f"program: error: {word}\n"
