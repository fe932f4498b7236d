"""What the benchmark of large datasets computes; that its commands run; no test depends on a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import large_datasets
from benchmarks.large_datasets import Line, Required, Task
from benchmarks.measured_process import Measured
from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import check_dataset, select_runs
from bids_harmonize.commands.group import write_group_reports

pytestmark = pytest.mark.benchmark


def took(seconds: float, megabytes: float = 100.0, code: int = 0) -> Measured:
    return Measured(seconds=seconds, processor_seconds=seconds / 2, megabytes=megabytes, code=code)


def line(required: Required) -> Line:
    return Line(
        name="task",
        seconds=4.0,
        processor_seconds=3.0,
        megabytes=200.0,
        small_seconds=1.0,
        small_megabytes=150.0,
        required=required,
    )


@pytest.mark.parametrize(
    ("required", "met"),
    [
        (Required(), True),
        (Required(seconds=4, megabytes=200), True),
        (Required(seconds=3), False),
        (Required(seconds=5, megabytes=199), False),
    ],
)
def test_what_is_required_is_compared_and_shown(required: Required, met: bool) -> None:
    task_line = line(required)
    assert task_line.met is met
    assert f"| {'yes' if met else '**no**'} |" in large_datasets.report([task_line], 10, 20, 1)


def test_medians_of_large_and_small_in_turn() -> None:
    ran: list[str] = []

    def run(command: Sequence[str | Path]) -> Measured:
        ran.append(str(command[0]))
        return took({"large": 10, "small": 1}[ran[-1]] * len(ran))

    task = Task(name="task", command=["large"], small=["small"], required=Required(seconds=1))
    (found,) = large_datasets.measure([task], 3, run)
    assert ran == ["small", "large"] * 3
    assert (found.seconds, found.small_seconds, found.processor_seconds) == (40, 3, 20)


def test_a_command_that_fails_ends_the_benchmark() -> None:
    task = Task(name="task", command=["x"], small=["x"], required=Required())
    with pytest.raises(RuntimeError, match="16"):
        large_datasets.measure([task], 1, lambda command: took(1, code=16))


def test_the_made_up_dataset_is_what_the_program_takes(tmp_path: Path) -> None:
    dataset = large_datasets.write_dataset(tmp_path / "raw", 3)
    assert check_dataset(dataset, False) == []
    assert len(select_runs(dataset, Filters())) == 3 * len(large_datasets.SESSIONS) * len(
        large_datasets.SUFFIXES
    )
    results = large_datasets.write_results(tmp_path / "out", dataset, 3)
    (report,) = write_group_reports(results, dataset)
    assert (report.scans, set(report.sites.labels)) == (3, {"site 0", "site 1", "site 2"})


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        large_datasets.main(["--participants", "2", "--scans", "8", "--repeats", "1", "--out", str(tmp_path)])
        == 0
    )
    content = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert len(content["Tasks"]) == 5
    assert all(task["seconds"] > 0 and task["megabytes"] > 10 for task in content["Tasks"])
    assert (tmp_path / "scale.md").read_text(encoding="utf-8") == capsys.readouterr().out
