"""One file outside of any dataset: as in a dataset, and nothing else is touched."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_harmonize.bids.body_part import BODY_PART_KEYS
from bids_harmonize.bids.output_paths import transform_path
from bids_harmonize.commands import harmonize_scan as scan_step
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.model.transform import Transform
from tests.helpers.bad_images import BAD_IMAGES
from tests.helpers.toy_datasets import (
    Result,
    files,
    harmonize,
    harmonize_image,
    head,
    image_of,
    output_of,
    sha256,
    sidecar_of,
    snapshot,
    voxels_of,
    write_dataset,
    write_scan,
)
from tests.helpers.toy_heads import ALWAYS, NEVER, write_detecting_model

NAME = "sub-01_T1w.nii.gz"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan in a folder of its own, without sidecar."""
    path = tmp_path / "in" / NAME
    path.parent.mkdir()
    nib.save(image_of(head(1)), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file to write, in a folder that is not there yet."""
    return tmp_path / "new" / "harmonized.nii.gz"


@pytest.fixture
def detecting(tmp_path: Path) -> Callable[[float], Path]:
    """Write a model that flags all scans or none."""
    return partial(write_detecting_model, tmp_path)


def sentence(result: Result) -> str:
    """What is told where nothing comes of it: one line on standard error."""
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    return result.err.removeprefix("bids-harmonize-image: error: ").rstrip("\n")


# As in a dataset


def test_voxels_header_and_sidecar_are_those_of_the_app(
    tmp_path: Path, out: Path, random_model: Path
) -> None:
    dataset = write_dataset(tmp_path / "data")
    scan = write_scan(dataset, NAME, sidecar={"EchoTime": 0.003, "BodyPart": "HEAD", "Units": "T"})
    options = ("--model", random_model, "--save-transform")
    assert harmonize(dataset, tmp_path / "out", "participant", *options).code == 0
    before = snapshot(dataset)
    result = harmonize_image(scan, out, *options)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"{scan} is harmonized, into {out}\n"
    assert snapshot(dataset) == before
    assert files(out.parent) == {f"harmonized{end}" for end in (".nii.gz", ".json", "_curves.safetensors")}
    expected = output_of(tmp_path / "out", NAME)
    assert sha256(out) == sha256(expected)
    curves = transform_path(out)
    assert sha256(curves) == sha256(transform_path(expected))
    assert np.array_equal(np.asarray(Transform.load(curves).apply(nib.load(scan)).dataobj), voxels_of(out))
    got, wanted = sidecar_of(out), sidecar_of(expected)
    assert got.pop("Sources") == [scan.as_uri()]
    assert wanted.pop("Sources")
    for content in (got, wanted):
        for key in ("Command", "ElapsedSeconds"):
            content["BidsHarmonize"].pop(key)
    assert got == wanted


def test_voxels_are_those_of_python_and_the_format_is_that_of_the_name(scan: Path, tmp_path: Path) -> None:
    assert harmonize_image(scan, tmp_path / "out.nii").code == 0
    assert (tmp_path / "out.nii").read_bytes()[344:348] == b"n+1\0"
    assert json.loads((tmp_path / "out.json").read_text())["BidsHarmonize"]["Model"] == "T1w-head"
    expected = Model.load("T1w", "cpu").harmonize(nib.load(scan)).image
    assert np.array_equal(voxels_of(tmp_path / "out.nii"), np.asarray(expected.dataobj))


@pytest.mark.parametrize(
    "kind", ["not NIfTI", "empty", "truncated", "damaged", "4-D", "complex", "all zeros", "negative"]
)
def test_bad_input_is_told_as_by_the_app(tmp_path: Path, out: Path, random_model: Path, kind: str) -> None:
    dataset = write_dataset(tmp_path / "data")
    path = dataset / "sub-01" / "anat" / NAME
    path.parent.mkdir(parents=True)
    BAD_IMAGES[kind][0](path)
    app = harmonize(dataset, tmp_path / "out", "participant", "--model", random_model)
    result = harmonize_image(path, out, "--model", random_model)
    assert result.code == app.code == 65
    assert sentence(result) == app.out.splitlines()[1].strip()
    assert not out.parent.exists()


def test_a_missing_input_is_66(tmp_path: Path, out: Path) -> None:
    result = harmonize_image(tmp_path / NAME, out)
    assert (result.code, sentence(result)) == (66, f"{tmp_path / NAME} does not exist")


def test_a_link_to_content_that_is_not_here_is_66(tmp_path: Path, out: Path) -> None:
    (tmp_path / NAME).symlink_to("nowhere")
    result = harmonize_image(tmp_path / NAME, out)
    assert (result.code, f"datalad get {tmp_path / NAME}" in sentence(result)) == (66, True)


def test_a_sidecar_that_cannot_be_read_is_65(scan: Path, out: Path) -> None:
    beside = scan.with_name("sub-01_T1w.json")
    beside.write_text("{")
    result = harmonize_image(scan, out)
    assert (result.code, f"{beside} is not valid JSON" in sentence(result)) == (65, True)


def test_a_doubtful_image_is_harmonized_with_a_warning(scan: Path, out: Path, random_model: Path) -> None:
    voxels = head(1).astype(np.float32)
    voxels[0, 0, :2] = np.nan
    nib.save(image_of(voxels), scan)
    result = harmonize_image(scan, out, "--model", random_model, "-q")
    assert (result.code, result.out) == (0, "")
    assert result.err == f"{scan}: 2 voxels that are not finite were set to 0\n"


def test_an_unexpected_failure_is_one_sentence_and_traced_on_demand(
    scan: Path, out: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(Model, "harmonize_loaded", fail)
    result = harmonize_image(scan, out, "--model", random_model)
    assert result.code == 65
    assert sentence(result) == (
        f"{scan} failed unexpectedly (ZeroDivisionError: of the test); please report it"
    )
    traced = harmonize_image(scan, out, "--model", random_model, "-vv")
    assert "Traceback (most recent call last)" in traced.err
    assert traced.err.splitlines()[-1] == f"bids-harmonize-image: error: {sentence(result)}"


# Models


def test_the_modality_chooses_the_model(scan: Path, out: Path) -> None:
    assert harmonize_image(scan, out, "--modality", "T2w").code == 0
    assert sidecar_of(out)["BidsHarmonize"]["Model"] == "T2w-head"
    assert sidecar_of(out)["Description"].startswith("T2w image")


def test_a_model_gives_the_modality_where_nothing_else_does(
    scan: Path, out: Path, random_model: Path
) -> None:
    nameless = scan.rename(scan.with_name("scan.nii.gz"))
    assert harmonize_image(nameless, out, "--model", random_model).code == 0
    assert sidecar_of(out)["Description"].startswith("T1w image")


@pytest.mark.parametrize("key", BODY_PART_KEYS)
def test_the_body_part_of_the_sidecar_chooses_the_model(scan: Path, out: Path, key: str) -> None:
    beside = scan.with_name("sub-01_T1w.json")
    beside.write_text(json.dumps({key: "Prostate"}))
    assert harmonize_image(scan, out, "--modality", "T2w").code == 0
    assert sidecar_of(out)["BidsHarmonize"]["Model"] == "T2w-prostate"
    result = harmonize_image(scan, out)
    assert result.code == 65
    assert sentence(result).startswith(f"{scan}: no model for T1w of PROSTATE (T1w-head is for HEAD,")


def test_a_model_for_something_else_is_65(scan: Path, out: Path, random_model: Path) -> None:
    result = harmonize_image(scan, out, "--model", random_model, "--modality", "T2w")
    assert (result.code, "is T2w, and the model random is not meant for that" in sentence(result)) == (
        65,
        True,
    )
    assert sentence(result).endswith("give another --model, or correct --modality")
    scan.with_name("sub-01_T1w.json").write_text('{"BodyPartExamined": "KNEE"}')
    result = harmonize_image(scan, out, "--model", random_model)
    assert (result.code, "is T1w of KNEE, and the model random" in sentence(result)) == (65, True)
    assert sentence(result).endswith("give another --model, or correct BodyPart in the sidecar")
    assert not out.exists()


# Scans that the model is not meant for


def test_by_default_a_foreign_scan_fails_and_nothing_is_written(
    scan: Path, out: Path, detecting: Callable[[float], Path]
) -> None:
    call = (scan, out, "--model", detecting(ALWAYS), "--out-of-distribution", "fail")
    result = harmonize_image(*call)
    assert result.code == 65
    assert sentence(result).startswith(f"{scan}: ")
    assert not out.parent.exists()
    nib.save(image_of(head(1)), out.parent.parent / "foreign.nii")
    before = sha256(out.parent.parent / "foreign.nii")
    harmonize_image(scan, out.parent.parent / "foreign.nii", *call[2:], "--force")
    assert sha256(out.parent.parent / "foreign.nii") == before


def test_on_demand_a_foreign_scan_is_written_unchanged(
    scan: Path, out: Path, detecting: Callable[[float], Path]
) -> None:
    result = harmonize_image(scan, out, "--model", detecting(ALWAYS), "--out-of-distribution", "skip")
    assert result.code == 0
    assert result.err.splitlines()[-1] == f"{scan} is passed through, into {out}"
    assert np.array_equal(voxels_of(out), voxels_of(scan))
    assert sidecar_of(out)["BidsHarmonize"]["Harmonized"] is False


def test_on_demand_a_foreign_scan_is_harmonized_and_flagged(
    scan: Path, out: Path, detecting: Callable[[float], Path]
) -> None:
    call = (scan, out, "--model", detecting(ALWAYS), "--out-of-distribution", "harmonize")
    assert harmonize_image(*call).code == 0
    record = sidecar_of(out)["BidsHarmonize"]
    assert (record["Harmonized"], record["OutOfDistribution"]["Flagged"]) == (True, True)
    assert not np.array_equal(voxels_of(out), voxels_of(scan))


def test_a_familiar_scan_is_harmonized(scan: Path, out: Path, detecting: Callable[[float], Path]) -> None:
    call = (scan, out, "--model", detecting(NEVER), "--out-of-distribution", "fail")
    assert harmonize_image(*call).code == 0
    assert sidecar_of(out)["BidsHarmonize"]["OutOfDistribution"]["Flagged"] is False


# What is overwritten, and what is not


def test_an_own_result_is_replaced_with_all_that_belongs_to_it(
    scan: Path, out: Path, random_model: Path
) -> None:
    assert harmonize_image(scan, out, "--model", random_model, "--save-transform").code == 0
    nib.save(image_of(head(2)), scan)
    assert harmonize_image(scan, out, "--model", random_model).code == 0
    assert files(out.parent) == {"harmonized.nii.gz", "harmonized.json"}
    assert sidecar_of(out)["BidsHarmonize"]["InputSHA256"] == sha256(scan)


@pytest.mark.parametrize("ending", [".nii.gz", ".json", "_curves.safetensors"])
def test_what_another_program_wrote_is_replaced_only_by_force(
    scan: Path, out: Path, random_model: Path, ending: str
) -> None:
    out.parent.mkdir()
    foreign = out.with_name(f"harmonized{ending}")
    foreign.write_text('{"EchoTime": 0.003}')
    result = harmonize_image(scan, out, "--model", random_model)
    assert result.code == 64
    assert sentence(result).startswith(f"{foreign} already exists and was not written by this program")
    assert foreign.read_text() == '{"EchoTime": 0.003}'
    assert files(out.parent) == {foreign.name}
    assert harmonize_image(scan, out, "--model", random_model, "--force").code == 0
    assert files(out.parent) == {"harmonized.nii.gz", "harmonized.json"}


@pytest.mark.parametrize("how", ["same", "link", "hard link", "sidecar", "card"])
def test_an_input_is_never_overwritten(scan: Path, tmp_path: Path, random_model: Path, how: str) -> None:
    weights = tmp_path / "model" / "mine.safetensors"
    weights.parent.mkdir()
    for ending in (".safetensors", ".json"):
        shutil.copy(random_model.with_suffix(ending), weights.with_suffix(ending))
    scan.with_name("sub-01_T1w.json").write_text('{"EchoTime": 0.003}')
    output = {
        "same": scan.parent / ".." / "in" / NAME,
        "link": tmp_path / "link.nii.gz",
        "hard link": tmp_path / "link.nii.gz",
        "sidecar": scan.with_name("sub-01_T1w.nii"),
        "card": weights.with_suffix(".nii.gz"),
    }[how]
    if how == "link":
        output.symlink_to(scan)
    elif how == "hard link":
        os.link(scan, output)
    before = snapshot(tmp_path)
    result = harmonize_image(scan, output, "--model", weights, "--force")
    assert (result.code, "is an input, and would be overwritten" in sentence(result)) == (64, True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("blocked", ["folder", "image"])
def test_an_output_that_cannot_be_created_is_73(
    scan: Path, out: Path, random_model: Path, blocked: str
) -> None:
    if blocked == "folder":
        out.parent.write_text("in the way")
    else:
        (out / "not-empty").mkdir(parents=True)
    result = harmonize_image(scan, out, "--model", random_model, "--force")
    assert (result.code, "cannot be created" in sentence(result)) == (73, True)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """As a full disk does, a limit on the size of a file stops its writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_74_and_leaves_nothing_half_written(scan: Path, out: Path, random_model: Path) -> None:
    with _largest_file(16_000):
        result = harmonize_image(scan, out, "--model", random_model)
    assert (result.code, f"{out} could not be written" in sentence(result)) == (74, True)
    assert files(out.parent) == set()


def test_an_interrupt_leaves_nothing_half_written(
    scan: Path, out: Path, random_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        assert out.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_step, "write_json", interrupt)
    result = harmonize_image(scan, out, "--model", random_model)
    assert (result.code, sentence(result)) == (130, "interrupted")
    assert files(out.parent) == set()
