"""What the benchmark of speed computes; that its commands run; no test depends on a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks import speed, speed_scans
from benchmarks.measured_process import Measured, machine_line, run_measured
from benchmarks.one_scan import FLOOR, OURS
from benchmarks.speed import Case, Row
from benchmarks.speed_scans import Files

pytestmark = pytest.mark.benchmark


def row(method: str, size: str, seconds: float, **changes: object) -> Row:
    values = {
        "case": Case(method=method),
        "size": size,
        "voxels": speed_scans.voxels_of(size),
        "seconds": seconds,
    }
    return Row(**values | {"inner_seconds": seconds / 2, "megabytes": 100.0} | changes)  # type: ignore[arg-type]


def took(seconds: float = 1.0, code: int | None = 0, output: str = "", error: str = "") -> Measured:
    return Measured(
        seconds=seconds, processor_seconds=0.5, megabytes=200.0, code=code, output=output, error=error
    )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    paths = {name: tmp_path / name for name in ("image", "mask", "standard")}
    return Files(size="64", voxels=64**3, **paths)


def test_a_straight_line_is_found() -> None:
    voxels = [1_000_000, 2_000_000, 5_000_000]
    line = speed.fit_line(voxels, [0.5 + 3 * n / 1e6 for n in voxels])
    assert line is not None
    assert (line.seconds_per_million, line.constant) == (pytest.approx(3), pytest.approx(0.5))
    assert line.r2 == pytest.approx(1)


def test_what_is_no_straight_line_has_a_low_r2() -> None:
    line = speed.fit_line([0, 1_000_000, 2_000_000], [0.0, 1.0, 0.0])
    assert line is not None and line.r2 == pytest.approx(0)
    assert speed.fit_line([1, 2], [1.0, 2.0]) is None


def test_ratios_are_to_the_same_scan_with_as_many_threads() -> None:
    two = row(FLOOR, "64", 1.0, case=Case(method=FLOOR, threads=2))
    rows = [row(FLOOR, "64", 2.0), row(FLOOR, "128", 5.0), two, row(OURS, "64", 6.0)]
    assert speed.ratio_to(rows, rows[-1], FLOOR) == pytest.approx(3)
    assert np.isnan(speed.ratio_to(rows, rows[-1], "N4"))
    twice = row(OURS, "64", 6.0, inner_seconds=2.0)
    assert speed.ratio_to([*rows, twice], twice, FLOOR, inner=True) == pytest.approx(2)


def test_all_scans_show_the_same_place() -> None:
    cube, thick = speed_scans.grid_of("128"), speed_scans.grid_of("thick")
    assert (cube.shape, thick.shape) == ((128, 128, 128), speed_scans.SHAPES["thick"])
    extents = [np.multiply(grid.shape, grid.zooms) for grid in (cube, thick)]
    assert extents[0] == pytest.approx(extents[1])


def test_methods_take_turns_and_what_fails_is_not_tried_again(files: Files) -> None:
    ran: list[str] = []

    def run(command, **settings) -> Measured:
        method = command[3] if command[2] == "benchmarks.one_scan" else "command"
        ran.append(method)
        if method == "FCM":
            return took(code=None)
        return took(seconds=len(ran), output='{"InnerSeconds": 0.25}')

    cases = [Case(method=name) for name in (FLOOR, "FCM", OURS)]
    rows = speed.measure(cases, files, 2, 60, run)
    assert ran == [FLOOR, "FCM", "command", OURS, FLOOR, "command", OURS]
    assert [row.failure for row in rows] == ["", "> 60 s", ""]
    # The middle of the first and fifth, and of the third and sixth.
    assert (rows[0].seconds, rows[2].seconds) == (3, 4.5)
    assert rows[2].inner_seconds == 0.25


def test_why_a_method_failed_is_in_the_table(files: Files) -> None:
    failed = took(code=1, error="Traceback\nMemoryError: a | b\n")
    (found,) = speed.measure([Case(method="N4")], files, 1, 60, lambda *a, **k: failed)
    assert "MemoryError: a / b" in speed.report([found], 1)


def test_the_report_names_the_machine_and_the_line(tmp_path: Path) -> None:
    rows = [
        row(name, size, factor * speed_scans.voxels_of(size) / 1e6)
        for size in ("32", "48", "64")
        for name, factor in ((FLOOR, 1.0), (OURS, 4.0))
    ]
    text = speed.report(rows, 3)
    assert machine_line().partition(",")[0] in text
    assert "| 64³ | 0.26 | ours | cpu, 1 | 1.05 | 4.00 | 1.00 | 0.524 | 4.00 | 100 |" in text
    assert "| ours | cpu, 1 | whole | 4.00 |" in text and "1.0000 | 3 |" in text
    speed.draw(rows, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_cuda_is_measured_once() -> None:
    cases = list(speed.make_cases([FLOOR, OURS], [1, 2], ["cpu", "cuda"]))
    assert [case.where for case in cases if case.method == OURS] == ["cpu, 1", "cpu, 2", "cuda"]
    assert [case.where for case in cases if case.method == FLOOR] == ["cpu, 1", "cpu, 2"]


def test_memory_is_that_of_the_command_alone() -> None:
    held = np.ones(40_000_000)
    small = run_measured(["python3", "-c", "print('done')"])
    assert (small.code, small.output) == (0, "done\n")
    assert small.megabytes < held.nbytes / 1e6


def test_a_command_that_takes_too_long_is_stopped() -> None:
    assert run_measured(["sleep", "60"], limit=0.2).code is None


def test_the_end_of_what_went_wrong_is_kept() -> None:
    failed = run_measured(["python3", "-c", "raise SystemExit('x' * 5000 + 'end')"])
    assert failed.code == 1 and failed.error.endswith("end\n")


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sizes", "24", "--repeats", "1", "--threads", "1", "--devices", "cpu"]
    assert speed.main([*options, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert [row["case"]["method"] for row in content["Rows"]] == speed.USUAL
    assert not any(row["failure"] for row in content["Rows"]), content["Rows"]
    assert all(row["seconds"] > row["inner_seconds"] > 0 for row in content["Rows"])
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == capsys.readouterr().out
