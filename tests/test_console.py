"""What all commands share."""

from __future__ import annotations

import os
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
