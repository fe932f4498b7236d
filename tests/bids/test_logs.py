from __future__ import annotations

import json
from pathlib import Path

from bids_harmonize.bids.logs import read_crashes, write_crash, write_run_log


def test_the_run_log_has_command_and_versions_and_only_the_environment_that_matters(tmp_path: Path) -> None:
    told = {"OMP_NUM_THREADS": "2", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}
    secret = {
        "SLURM_JWT": "s3cret",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "HOME": "/h",
        "PATH": "/b",
        "TOKEN": "s3cret",
    }
    path = write_run_log(
        tmp_path, ["bids-harmonize", "/d", "é"], told | secret, {"python": "3.11", "torch": None}
    )
    log = json.loads(path.read_text(encoding="utf-8"))
    assert path.parent == tmp_path / "logs"
    assert log["Command"] == ["bids-harmonize", "/d", "é"]
    assert log["Environment"] == told
    assert log["Versions"] == {"python": "3.11", "torch": None}
    assert "s3cret" not in path.read_text()


def test_the_crash_file_names_the_scan_and_the_error(tmp_path: Path, run_at) -> None:
    path = write_crash(tmp_path, run_at("sub-1/anat/sub-1_T1w.nii"), "It is truncated.\n\n")
    assert path.read_text() == "sub-1/anat/sub-1_T1w.nii\n\nIt is truncated.\n"
    assert "sub-1" in path.name


def test_the_last_failure_of_each_scan_is_read_again(tmp_path: Path, run_at) -> None:
    assert read_crashes(tmp_path) == []
    for scan, sentence in (
        ("sub-1_T1w.nii", "Old."),
        ("sub-2_T2w.nii.gz", "Two."),
        ("sub-1_T1w.nii", "New."),
    ):
        path = write_crash(tmp_path, run_at(f"sub-{scan[4]}/anat/{scan}"), f"{sentence}\n\nTraceback")
        # The file is renamed as if a second had passed.
        path.rename(path.with_name(f"crash_2026010{len(list(path.parent.iterdir()))}_{path.name[-20:]}"))
    (tmp_path / "logs" / "crash_0_empty.txt").write_text("")
    found = {crash.stem: crash.sentence for crash in read_crashes(tmp_path)}
    assert found == {"sub-1_T1w": "New.", "sub-2_T2w": "Two."}


def test_names_are_unique(tmp_path: Path, run_at) -> None:
    run = run_at(f"sub-1/anat/sub-1_acq-{'x' * 220}_T1w.nii")
    paths = {write_crash(tmp_path, run, "x") for _ in range(20)} | {
        write_run_log(tmp_path, [], {}) for _ in range(20)
    }
    assert len(paths) == len(list((tmp_path / "logs").iterdir())) == 40
