from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import pytest

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.derivatives import sidecar, source_uri
from bids_harmonize.bids.selection import Filters, select_runs
from bids_harmonize.bids.sidecars import read_metadata

BESIDE = Path(sys.executable).with_name("bids-validator-deno")
VALIDATOR = str(BESIDE) if BESIDE.exists() else shutil.which("bids-validator-deno")
METADATA = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "EchoTime": [0.01, 0.02],
    "FlipAngle": 9,
    "ScanningSequence": ["GR", "IR"],
    "MRAcquisitionType": "3D",
    "Units": "arbitrary",
}


def test_the_sidecar_says_what_and_from_what(run_at) -> None:
    run = run_at("sub-1/ses-a/anat/sub-1_ses-a_T1w.nii")
    metadata = {"EchoTime": 0.01, "SkullStripped": True}
    found = sidecar(metadata, suffix="T1w", source=source_uri(run), harmonize={"Version": "1"})
    assert found.pop("Description").startswith("T1w")
    assert found == {
        "Sources": ["bids:raw:sub-1/ses-a/anat/sub-1_ses-a_T1w.nii"],
        "SpatialReference": "orig",
        "SkullStripped": True,
        "EchoTime": 0.01,
        "BidsHarmonize": {"Version": "1"},
    }


def test_another_link_name_and_a_name_that_needs_quoting(run_at) -> None:
    run = run_at("sub-1/anat/sub-1_acq-a b#c_T1w.nii")
    assert source_uri(run, "site") == "bids:site:sub-1/anat/sub-1_acq-a%20b%23c_T1w.nii"


@pytest.fixture
def raw(dataset: Path, add) -> Path:
    add("sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-01_T1w.nii.gz")
    add("sub-01/ses-a/anat/sub-01_ses-a_echo-1_T2w.nii")
    add("sub-01/ses-b/anat/sub-01_ses-b_inplaneT2.nii.gz")
    add("sub-02/anat/sub-02_part-mag_T1w.nii.gz")
    add("T1w.json", METADATA)
    add("T2w.json", METADATA | {"EchoTime": 0.1})
    return dataset


def write_derivatives(raw: Path, output: Path) -> list[Path]:
    derivatives.prepare_output(output, raw)
    derivatives.write_dataset_files(output, raw, version="0.1.0")
    derivatives.write_run_log(output, ["bids-harmonize"], {})
    runs = select_runs(raw, Filters(modalities=("T1w", "T2w", "inplaneT2")))
    written = [derivatives.output_path(output, run) for run in runs]
    for run, path in zip(runs, written, strict=True):
        with derivatives.write_atomically(path) as temporary:
            nib.save(nib.load(run.path), temporary)
        with derivatives.write_atomically(derivatives.transform_path(path)) as temporary:
            temporary.write_bytes(b"curves")
        content = sidecar(
            read_metadata(run), suffix=run.suffix, source=source_uri(run), harmonize={"Version": "0.1.0"}
        )
        derivatives.write_json(derivatives.sidecar_path(path), content)
        derivatives.write_crash(output, run, "none")
    (output / ".tmp-left-behind-T1w.nii.gz").write_bytes(b"killed")
    for extra in ("sub-01.html", "group_T1w.tsv", "sub-01/figures/sub-01_T1w.svg"):
        (output / extra).parent.mkdir(parents=True, exist_ok=True)
        (output / extra).write_text("report")
    return written


def issues(folder: Path, scratch: Path) -> list[tuple[str, str | None]]:
    config = scratch / "config.json"
    config.write_text('{"error": [{"severity": "warning"}]}')
    assert VALIDATOR is not None
    # The validator keeps its cache in the home folder otherwise, which may be read-only.
    environment: Mapping[str, str] = os.environ | {
        "DENO_DIR": str(scratch / "deno"),
        "DENO_NO_UPDATE_CHECK": "1",
    }
    command = [VALIDATOR, str(folder), "--format", "json", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    found = json.loads(done.stdout)["issues"]["issues"]
    assert (done.returncode == 0) == (not found), done.stderr
    return [(issue["code"], issue.get("location")) for issue in found]


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
@pytest.mark.parametrize("place", ["../out", "derivatives/bids-harmonize", "derivatives/mine"])
def test_the_derivatives_are_valid_without_warnings(raw: Path, tmp_path: Path, place: str) -> None:
    output = Path(os.path.normpath(raw / place))
    written = write_derivatives(raw, output)
    assert len(written) == 4
    assert issues(output, tmp_path) == []
    for path in written:
        (uri,) = json.loads(derivatives.sidecar_path(path).read_text())["Sources"]
        assert (raw / uri.removeprefix("bids:raw:")).is_file()


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_would_have_seen_a_fault(raw: Path, tmp_path: Path) -> None:
    first = derivatives.sidecar_path(write_derivatives(raw, tmp_path / "out")[0])
    content = json.loads(first.read_text())
    del content["SkullStripped"]
    derivatives.write_json(first, content)
    (tmp_path / "out" / "sub-01" / "left.nii.gz.tmp").write_bytes(b"killed")
    found = issues(tmp_path / "out", tmp_path)
    assert ("NOT_INCLUDED", "/sub-01/left.nii.gz.tmp") in found
    assert "SIDECAR_KEY_REQUIRED" in {code for code, _ in found}
