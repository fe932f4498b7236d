"""Dask workers: the same files as on one machine, whoever of them is killed."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bids_harmonize import errors
from bids_harmonize.execution import dask_cluster, slurm_jobs
from bids_harmonize.execution.dask_cluster import DaskExecutor, connect_cluster
from bids_harmonize.execution.local import OrderedMap, WorkerKilled
from bids_harmonize.execution.slurm_jobs import ClusterSpec
from tests.helpers.toy_datasets import (
    counts,
    expected_files,
    files,
    harmonize,
    head,
    image_of,
    scan_files,
    sha256,
    write_dataset,
    write_scan,
)

pytestmark = pytest.mark.cluster

distributed = pytest.importorskip("distributed", reason="Dask, of the extra cluster, is missing")


NAMES = [f"sub-{n:02d}_T1w.nii.gz" for n in range(6)]


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """Two worker processes, and a scheduler that replaces those that die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("raw") / "data")
    for n, name in enumerate(NAMES):
        write_scan(folder, name, image_of(head(n)))
    return folder


@pytest.fixture(scope="module")
def expected(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process makes of it."""
    output = tmp_path_factory.mktemp("one") / "out"
    assert harmonize(dataset, output, "participant").code == 0
    return written(output)


def written(output: Path) -> dict[str, str]:
    return {name: sha256(output / name) for name in files(output) if name.endswith((".gz", ".svg", ".png"))}


def write_down_and_double(number: int, folder: Path) -> int:
    (folder / f"{number}-{os.getpid()}").touch()
    time.sleep(1)
    return 2 * number


def end(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_the_work_of_a_killed_worker_is_done_by_another(workers: Any, tmp_path: Path) -> None:
    def kill() -> None:
        while not (begun := list(tmp_path.iterdir())):
            time.sleep(0.05)
        os.kill(int(begun[0].name.split("-")[1]), signal.SIGKILL)

    wanted = ClusterSpec(workers=2, threads=1, memory=None)
    killer = threading.Thread(target=kill)
    killer.start()
    with connect_cluster(workers.scheduler_address, wanted) as executor:
        futures = [executor.submit(write_down_and_double, n, tmp_path) for n in range(4)]
        results = [executor.collect(future, write_down_and_double) for future in futures]
    killer.join()
    assert results == [0, 2, 4, 6]
    # One was begun twice.
    assert len(list(tmp_path.iterdir())) > 4


def test_what_kills_every_worker_is_lost_and_nothing_else(workers: Any) -> None:
    with connect_cluster(
        workers.scheduler_address, ClusterSpec(workers=2, threads=1, memory=None)
    ) as executor:
        assert list(OrderedMap(executor, end, range(4), on_worker_killed=lambda number: -number)) == [
            0,
            -1,
            2,
            3,
        ]
        with pytest.raises(WorkerKilled):
            executor.collect(executor.submit(end, 1), end, 1)


def test_a_dataset_is_done_as_by_one_process_though_a_worker_is_killed(
    dataset: Path, expected: dict[str, str], workers: Any, tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def kill() -> None:
        while not list(output.glob("sub-*/anat/*.json")):
            time.sleep(0.02)
        with distributed.Client(workers.scheduler_address, set_as_default=False) as client:
            pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = harmonize(dataset, output, "participant", "--scheduler", workers.scheduler_address)
    killer.join()
    # The killed worker had scans done whose outcome was lost with it.
    assert result.code == 0
    assert set(counts(result)) <= {"harmonized", "up to date"}
    assert sum(counts(result).values()) == len(NAMES)
    assert scan_files(output) == expected_files(*NAMES)
    assert written(output) == expected
    again = harmonize(dataset, output, "participant", "--scheduler", workers.scheduler_address)
    assert counts(again) == {"up to date": len(NAMES)}


def test_a_cluster_of_this_machine_is_made_and_closed(dataset: Path, tmp_path: Path) -> None:
    asked = ("--participant-label", "00", "01", "--scheduler", "local", "--n-cpus", "2")
    result = harmonize(dataset, tmp_path / "out", "participant", *asked)
    assert (result.code, counts(result)) == (0, {"harmonized": 2})
    assert "local: 2 threads of 2 workers" in result.err


def test_a_scheduler_that_does_not_answer_is_74(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "SECONDS_TO_CONNECT", 1)
    result = harmonize(dataset, tmp_path / "out", "participant", "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == errors.InputOutputError.exit_code
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in result.err
    assert "Traceback" not in result.err
    assert scan_files(tmp_path / "out") == set()


@pytest.mark.parametrize("missing", ["distributed", "dask_jobqueue.slurm", "dask_kubernetes.operator"])
def test_what_is_not_installed_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    kind = {"dask_jobqueue.slurm": "slurm", "dask_kubernetes.operator": "kubernetes"}.get(missing, "local")
    result = harmonize(dataset, tmp_path / "out", "participant", "--scheduler", kind)
    assert result.code == errors.UsageError.exit_code
    assert "pip install" in result.err


# --- Slurm, whose commands are stand-ins here; .ci/slurm has a real one --------------------------------

SBATCH = """
# An own session, so that scancel reaches all of a job.
# As of Slurm: the file may be gone once this returns.
script=$(mktemp {folder}/script.XXXXXX) && cp "$1" "$script"
setsid bash "$script" >>{folder}/printed 2>&1 & job=$!
echo $job >>{folder}/jobs
grep '^#SBATCH' "$1" >>{folder}/directives
echo "Submitted batch job $job"
"""
SQUEUE = """
# What was killed is there until somebody asks for its exit code.
while read -r job; do if ps -s "$job" -o stat= | grep -qv '^Z'; then echo "$job"; fi; done <{folder}/jobs
"""
SCANCEL = """
kill -TERM -- "-$1" 2>/dev/null
"""
ENDS_AT_ONCE = """
echo x >>{folder}/jobs
echo "Submitted batch job $(wc -l <{folder}/jobs)"
"""
FORGETS = """
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
"""
REFUSES = """
echo "sbatch: error: invalid partition specified: nowhere" >&2; exit 1
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts commands of Slurm in front of the path; gives the folder that they write to."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(dask_cluster, "SECONDS_BETWEEN_CHECKS", 0.2)

    def install(**commands: str) -> Path:
        for name, script in {"squeue": SQUEUE, "scancel": SCANCEL, **commands}.items():
            command = folder / name
            command.write_text("#!/bin/bash" + script.replace("{folder}", str(folder)))
            command.chmod(command.stat().st_mode | stat.S_IXUSR)
        return folder

    return install


def test_jobs_of_slurm_do_a_dataset_and_others_are_submitted_when_they_end(
    dataset: Path, expected: dict[str, str], slurm: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = slurm(sbatch=SBATCH), tmp_path / "an output"

    def end_all() -> None:
        while not list(output.glob("sub-*/anat/*.json")):
            time.sleep(0.02)
        for job in (folder / "jobs").read_text().split():
            os.killpg(int(job), signal.SIGKILL)

    killer = threading.Thread(target=end_all)
    killer.start()
    result = harmonize(dataset, output, "participant", "--scheduler", "slurm", "--n-cpus", "2")
    killer.join()
    assert result.code == 0, (folder / "printed").read_text()
    # Where a machine is slow, their ends are noticed one by one.
    ended = re.findall(r"(\d+) Slurm jobs ended before all scans were done", result.err)
    assert sum(map(int, ended)) == 2
    assert written(output) == expected
    # What they print is kept with the other logs, and their directory may have a space.
    assert f'#SBATCH --output="{output}/logs/dask-worker-%j.log"' in (folder / "directives").read_text()
    jobs = (folder / "jobs").read_text().split()
    assert len(jobs) == 4
    deadline = time.monotonic() + 10
    while subprocess.run([folder / "squeue"], capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline, "a job is left"
        time.sleep(0.1)


def test_jobs_of_slurm_that_end_at_once_are_told_and_not_submitted_for_ever(
    dataset: Path, slurm: Callable[..., Path], tmp_path: Path
) -> None:
    folder = slurm(sbatch=ENDS_AT_ONCE, squeue=FORGETS)
    result = harmonize(dataset, tmp_path / "out", "participant", "--scheduler", "slurm", "--n-cpus", "2")
    assert result.code == errors.InputOutputError.exit_code
    assert "8 jobs ended without running any task" in result.err
    assert str(tmp_path / "out" / "logs") in result.err
    assert len((folder / "jobs").read_text().split()) == 2 * (1 + slurm_jobs.MAX_RESUBMISSIONS_PER_WORKER)


def test_what_slurm_refuses_is_told_in_its_words(
    dataset: Path, slurm: Callable[..., Path], tmp_path: Path
) -> None:
    slurm(sbatch=REFUSES)
    result = harmonize(dataset, tmp_path / "out", "participant", "--scheduler", "slurm", "--n-cpus", "2")
    assert result.code == errors.InputOutputError.exit_code
    assert "invalid partition specified: nowhere" in result.err
    assert "Traceback" not in result.err


def test_a_slurm_that_does_not_answer_has_ended_no_job(slurm: Callable[..., Path]) -> None:
    slurm(squeue='\necho "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1\n')
    assert slurm_jobs.queued_jobs(["1"]) is None
    slurm(squeue=FORGETS)
    assert slurm_jobs.queued_jobs(["1"]) == set()
    slurm(squeue='\n[ "$3" = --jobs=1,2 ] && echo 2\n')
    assert slurm_jobs.queued_jobs(["1", "2"]) == {"2"}


def test_dask_is_a_executor_of_the_threads_it_has() -> None:
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=False, dashboard_address=None
        ) as made,
        connect_cluster(made.scheduler_address, ClusterSpec(workers=1, threads=1, memory=None)) as executor,
    ):
        assert isinstance(executor, DaskExecutor)
        assert executor.size == 3
