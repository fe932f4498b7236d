"""What the benchmark of many scans computes; that its commands run; no test depends on a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import throughput
from benchmarks.measured_process import Measured
from benchmarks.one_scan import FLOOR, OURS
from benchmarks.throughput import Line, Size, Start

pytestmark = pytest.mark.benchmark


def made_line(method: str, cpus: int, seconds: float) -> Line:
    return Line(method=method, cpus=cpus, seconds=seconds, processor_seconds=3.0, megabytes=500.0)


def test_seconds_are_per_scan_and_ways_take_turns(tmp_path: Path) -> None:
    ran: list[str] = []

    def run(command: Sequence[str | Path]) -> Measured:
        ran.append(FLOOR if "-c" in command else str(command[-1]))
        return Measured(seconds=10.0 * len(ran), processor_seconds=4, megabytes=100, code=0)

    lines = throughput.measure(tmp_path / "raw", 10, [1, 2], 2, run)
    assert ran == [FLOOR, "1", "2"] * 2
    assert [(line.method, line.cpus, line.seconds) for line in lines] == [
        (FLOOR, 1, 2.5),
        (OURS, 1, 3.5),
        (OURS, 2, 4.5),
    ]


def test_a_command_that_fails_ends_it(tmp_path: Path) -> None:
    failed = Measured(seconds=1, processor_seconds=1, megabytes=1, code=65, error="sub-000 is damaged")
    with pytest.raises(RuntimeError, match="sub-000 is damaged"):
        throughput.measure(tmp_path / "raw", 1, [1], 1, lambda command: failed)


def test_the_report_compares_with_reading_and_writing() -> None:
    lines = [made_line(FLOOR, 1, 1.5), made_line(OURS, 1, 4.5), made_line(OURS, 2, 2.4)]
    size = Size(input_megabytes=17, image_megabytes=46, report_megabytes=0.4, files=15)
    text = throughput.report(lines, Start(help_seconds=0.2, first_seconds=2.5), size, 24, "head", 3)
    assert "| ours | 1 | 4.50 | 3.00 | 3.00 | 500 |" in text
    # The largest of several processes says little, and the time of workers is not known to their parent.
    assert "| ours | 2 | 2.40 | 1.60 | - | - |" in text
    assert "24 T1w phantoms of 256 × 256 × 192" in text
    assert "first scan: 2.50 s" in text
    assert "46.0 MB of image and 0.400 MB of page and figures written, in 15 files" in text


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--scans", "2", "--size", "24", "--repeats", "1", "--cpus", "1"]
    assert throughput.main([*options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "many.json").read_text(encoding="utf-8"))
    assert [line["method"] for line in content["Lines"]] == [FLOOR, OURS]
    # Image, sidecar, figures with their manifest, and the page.
    assert content["Size"]["files"] == 2 + 13 + 1
    assert content["Size"]["image_megabytes"] > content["Size"]["input_megabytes"] > 0
    assert 0 < content["Start"]["help_seconds"] < content["Start"]["first_seconds"]
    assert (tmp_path / "many.md").read_text(encoding="utf-8") == capsys.readouterr().out
