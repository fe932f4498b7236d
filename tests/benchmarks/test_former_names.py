"""The commands that older texts name still run."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

pytestmark = pytest.mark.benchmark


@pytest.mark.parametrize(
    ("former", "current"),
    [
        ("many", "throughput"),
        ("scale", "large_datasets"),
        ("abstain", "ood_detection"),
        ("overhead", "dispatch_overhead"),
    ],
)
def test_the_former_name_runs_the_command(
    former: str, current: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [former, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{former}", run_name="__main__")
    assert ended.value.code == 0
    assert f"benchmarks.{current}" in capsys.readouterr().out
