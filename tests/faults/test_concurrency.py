"""Processes that share an output folder, as those of a job array do."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import warm_processes
from tests.helpers.soundness import assert_sound, assert_whole
from tests.helpers.toy_datasets import Result, counts, head, image_of, write_dataset, write_scan

PEOPLE = ("01", "02", "03", "04")
SUFFIXES = ("T1w", "T2w")
NAMES = tuple(f"sub-{label}_{suffix}.nii.gz" for label in PEOPLE for suffix in SUFFIXES)
PROCESSES = 8
ARGUMENTS = ("out", "participant")


@dataclass(frozen=True)
class Undisturbed:
    """What one process makes of all scans, and how often it touched a file of the output."""

    dataset: Path
    output: Path
    touches: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    dataset, output = write_dataset(folder / "data"), folder / "out"
    for seed, name in enumerate(NAMES):
        write_scan(dataset, name, image_of(head(seed, (10, 12, 10)), 16))
    result = warm_processes.run(
        folder, dataset, *ARGUMENTS, fault=warm_processes.Counted(output, folder / "touches")
    )
    assert result.code == 0, result.err
    touches = len((folder / "touches").read_text().splitlines())
    return Undisturbed(dataset=dataset, output=output, touches=touches)


def _spread(generator: random.Random, count: int, end: int) -> list[int]:
    """Touches of a file, from the first to the last, one in each of as many equal parts."""
    return [1 + int((part + generator.random()) / count * end) for part in range(count)]


def _all_done(running: Sequence[warm_processes.Running]) -> list[Result]:
    results = [process.wait() for process in running]
    for result in results:
        assert (result.code, "Traceback" in result.err) == (0, False), result.err
    return results


def test_a_job_array(undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str]) -> None:
    """A process per scan, two per participant, all at once: every file, one description, whole pages."""
    jobs = [(label, suffix) for label in PEOPLE for suffix in SUFFIXES]
    results = _all_done(
        [
            warm_processes.start(
                tmp_path,
                undisturbed.dataset,
                *ARGUMENTS,
                "--participant-label",
                label,
                "--modalities",
                suffix,
            )
            for label, suffix in jobs
        ]
    )
    assert [counts(result) for result in results] == len(jobs) * [{"harmonized": 1}]
    assert_whole(tmp_path / "out", undisturbed.output)
    assert len(list((tmp_path / "out/logs").iterdir())) == len(jobs)
    tally["processes that shared an output"] += len(jobs)


def test_all_do_the_same(undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str]) -> None:
    """Processes that all do all scans, at once: none disturbs another, and each finds all done in the end."""
    results = _all_done(
        [warm_processes.start(tmp_path, undisturbed.dataset, *ARGUMENTS) for _ in range(PROCESSES)]
    )
    for result in results:
        assert sum(counts(result).values()) == len(NAMES)
    assert_whole(tmp_path / "out", undisturbed.output)
    tally["processes that shared an output"] += PROCESSES


def test_some_are_killed_meanwhile(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str]
) -> None:
    """Kills disturb no other process, and what they leave is completed and removed."""
    generator = random.Random(21)
    for n in range(8 if long else 1):
        folder = tmp_path / str(n)
        folder.mkdir()
        killed = [
            warm_processes.start(
                folder,
                undisturbed.dataset,
                *ARGUMENTS,
                fault=warm_processes.AtTouch(moment, folder / "out", signal.SIGKILL),
            )
            for moment in _spread(generator, PROCESSES // 2, undisturbed.touches // 2)
        ]
        others = [
            warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS) for _ in range(PROCESSES // 2)
        ]
        _all_done(others)
        assert [process.wait().code for process in killed] == len(killed) * [-signal.SIGKILL]
        assert_sound(folder / "out", undisturbed.output)
        _all_done([warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS)])
        assert_whole(folder / "out", undisturbed.output)
        tally["kills survived"] += len(killed)


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "is killed"])
def test_one_is_slower(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str], then: signal.Signals
) -> None:
    """A process that stands still at any moment, as on a busy disk, while another does all: no file is lost.

    What the first is writing then is not taken for left behind.
    """
    generator, held = random.Random(22), 0
    moments = [(moment, " ") for moment in _spread(generator, 16 if long else 3, undisturbed.touches)]
    # Just before a file gets its name, it is there and hidden; at any other moment there may be none.
    for n, (moment, what) in enumerate([*moments, (generator.randint(1, len(NAMES)), "os.rename ")]):
        folder = tmp_path / str(n)
        folder.mkdir()
        fault = warm_processes.AtTouch(moment, folder / "out", signal.SIGSTOP, what)
        slower = warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS, fault=fault)
        warm_processes.hold(slower)
        hidden = set(folder.rglob(".tmp-*"))
        held += len(hidden)
        _all_done([warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS)])
        assert set(folder.rglob(".tmp-*")) == hidden
        if then == signal.SIGCONT:
            assert warm_processes.go_on(slower).code == 0
        else:
            slower.process.kill()
            assert slower.wait().code == -signal.SIGKILL
            assert_sound(folder / "out", undisturbed.output)
            _all_done([warm_processes.start(folder, undisturbed.dataset, *ARGUMENTS)])
        assert_whole(folder / "out", undisturbed.output)
        tally["processes that shared an output"] += 2
    assert held > 0


@pytest.mark.parametrize("slower", ["--force", "--reports-only"])
def test_reports_of_scans_that_are_done_again(
    undisturbed: Undisturbed, tmp_path: Path, long: bool, tally: Counter[str], slower: str
) -> None:
    """Pages are written while another process does their scans again: and all is told."""
    faster = {"--force": "--reports-only", "--reports-only": "--force"}[slower]
    shutil.copytree(undisturbed.output, tmp_path / "out")
    person, figures = (*ARGUMENTS, "--participant-label", PEOPLE[0]), f"sub-{PEOPLE[0]}/figures"
    # A page needs its figures drawn anew.
    shutil.rmtree(tmp_path / "out" / figures)
    fault: warm_processes.Fault = warm_processes.Counted(tmp_path / "out", tmp_path / "touches")
    _all_done([warm_processes.start(tmp_path, undisturbed.dataset, *person, slower, fault=fault)])
    touches = len((tmp_path / "touches").read_text().splitlines())
    for moment in _spread(random.Random(23), 30 if long else 2, touches):
        shutil.rmtree(tmp_path / "out" / figures)
        fault = warm_processes.AtTouch(moment, tmp_path / "out", signal.SIGSTOP)
        held = warm_processes.start(tmp_path, undisturbed.dataset, *person, slower, fault=fault)
        warm_processes.hold(held)
        _all_done([warm_processes.start(tmp_path, undisturbed.dataset, *person, faster)])
        assert warm_processes.go_on(held).code == 0, held.err.read_text()
        assert_whole(tmp_path / "out", undisturbed.output)
        tally["processes that shared an output"] += 2


@pytest.mark.parametrize("reader", [("participant", "--reports-only"), ("group",)], ids=["person", "group"])
def test_a_sidecar_that_vanishes_before_it_is_read(
    undisturbed: Undisturbed, tmp_path: Path, tally: Counter[str], reader: tuple[str, ...]
) -> None:
    """A scan is done again by another process just when its sidecar is to be read for a page: no failure."""
    output, image = tmp_path / "out", f"sub-{PEOPLE[0]}_desc-harmonized_T1w"
    shutil.copytree(undisturbed.output, output)
    reading = warm_processes.AtTouch(1, output, signal.SIGSTOP, what=f"open {image}.json")
    reports = warm_processes.start(tmp_path, undisturbed.dataset, "out", *reader, fault=reading)
    warm_processes.hold(reports)
    # The sidecar is removed before the image.
    removing = warm_processes.AtTouch(1, output, signal.SIGSTOP, what=f"os.remove {image}.nii.gz")
    person = ("--participant-label", PEOPLE[0])
    again = warm_processes.start(
        tmp_path, undisturbed.dataset, *ARGUMENTS, *person, "--force", fault=removing
    )
    warm_processes.hold(again)
    assert not output.joinpath(f"sub-{PEOPLE[0]}/anat/{image}.json").exists()
    result = warm_processes.go_on(reports)
    assert (result.code, "Traceback" in result.err) == (0, False), result.err
    assert warm_processes.go_on(again).code == 0
    for path in output.glob("group_*"):
        path.unlink()
    assert_whole(output, undisturbed.output)
    tally["processes that shared an output"] += 2
