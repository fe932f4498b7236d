"""What the benchmark of large datasets computes; that its commands run; no test depends on a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.apart import Measured
from benchmarks.scale import Line, Required, Task
from bids_harmonize.bids.selection import Filters, check_dataset, select_runs
from bids_harmonize.report.group import write_group_reports


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
def test_what_is_required_is_compared_and_told(required: Required, met: bool) -> None:
    one = line(required)
    assert one.met is met
    assert f"| {'yes' if met else '**no**'} |" in scale.report([one], 10, 20, 1)


def test_medians_of_large_and_small_in_turn() -> None:
    ran: list[str] = []

    def run(command) -> Measured:
        ran.append(command[0])
        return took({"large": 10, "small": 1}[command[0]] * len(ran))

    task = Task(name="task", command=["large"], small=["small"], required=Required(seconds=1))
    (found,) = scale.measure([task], 3, run)
    assert ran == ["small", "large"] * 3
    assert (found.seconds, found.small_seconds, found.processor_seconds) == (40, 3, 20)


def test_a_command_that_fails_ends_the_benchmark() -> None:
    task = Task(name="task", command=["x"], small=["x"], required=Required())
    with pytest.raises(RuntimeError, match="x ended with 16"):
        scale.measure([task], 1, lambda command: took(1, code=16))


def test_the_made_up_dataset_is_what_the_program_takes(tmp_path: Path) -> None:
    dataset = scale.write_dataset(tmp_path / "raw", 3)
    assert check_dataset(dataset, False) == []
    assert len(select_runs(dataset, Filters())) == 3 * len(scale.SESSIONS) * len(scale.SUFFIXES)
    results = scale.write_results(tmp_path / "out", dataset, 3)
    (report,) = write_group_reports(results, dataset)
    assert (report.scans, set(report.sites.labels)) == (3, {"site 0", "site 1", "site 2"})


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--people", "2", "--scans", "8", "--repeats", "1", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert len(content["Tasks"]) == 5
    assert all(task["seconds"] > 0 and task["megabytes"] > 10 for task in content["Tasks"])
    assert (tmp_path / "scale.md").read_text(encoding="utf-8") == capsys.readouterr().out
