"""What is calculated for a hundred thousand scans, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import projection
from benchmarks.projection import Assumptions, ScanCosts

pytestmark = pytest.mark.benchmark

COSTS = ScanCosts(
    processor_seconds=3.6,
    start_seconds=0.0,
    handing_out_seconds=0.036,
    group_seconds=0.0018,
    read=20,
    written=50,
    reported=0.5,
    files=15,
)


def test_time_by_hand() -> None:
    assert projection.hours(COSTS, Assumptions(), 100_000, 100) == pytest.approx(1)
    slow = ScanCosts(**vars(COSTS) | {"start_seconds": 360.0})
    assert projection.hours(slow, Assumptions(scans_per_task=100), 100_000, 100) == pytest.approx(2)


def test_the_report_by_hand() -> None:
    text = projection.report(COSTS, Assumptions(core_hour=0.04, gigabyte_month=0.02), 100_000, [1, 100])
    # 7.05 TB in an hour are 1958 MB/s.
    assert "| 100 | 1.00 h | 17.8 | 4 |" in text
    assert "| 1 | 4.17 days | 0.178 | 4 |" in text
    assert "2.00 TB are read, 5.05 TB written, in 1.5 million files" in text
    assert "101 $ a month" in text
    assert "at 10 Gbit/s that takes 1.78 h" in text
    assert "The level group: 3.00 min" in text
    assert "36.0 ms a scan, which keeps up with 100 cores" in text


def test_it_reads_what_the_other_benchmarks_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"method": "reading and writing", "cpus": 1, "processor_seconds": 1.0},
        {"method": "ours", "cpus": 1, "processor_seconds": 3.0},
        {"method": "ours", "cpus": 2, "processor_seconds": 9.0},
    ]
    size = {"input_megabytes": 17.0, "image_megabytes": 46.0, "report_megabytes": 0.4, "files": 15.0}
    many = {"Lines": lines, "Start": {"first_seconds": 2.5}, "Size": size}
    tasks = [
        {"name": "selection of one person, nothing else", "seconds": 3.0, "small_seconds": 0.5},
        {"name": "group", "seconds": 40.0},
    ]
    found = {
        "many": many,
        "scale": {"Scans": 20_000, "Tasks": tasks},
        "overhead": {"Milliseconds": {"Dask, local": 25.0}},
    }
    for name, content in found.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    measured = projection.read(many, found["scale"], found["overhead"])
    assert (measured.processor_seconds, measured.start_seconds, measured.group_seconds) == (3.0, 5.0, 0.002)
    assert projection.main(["--results", str(tmp_path), "--cores", "8"]) == 0
    assert (tmp_path / "projection.md").read_text() == capsys.readouterr().out
