from __future__ import annotations

from pathlib import Path

import pytest

from bids_harmonize.bids.output_paths import sidecar_path, transform_path
from bids_harmonize.errors import CannotCreate
from bids_harmonize.files.atomic import write_json
from bids_harmonize.results.resume import is_up_to_date, remove_output

HASHES = {"input_sha256": "i", "model_sha256": "m", "options_sha256": "o"}
RECORD = {"InputSHA256": "i", "ModelSHA256": "m", "OptionsSHA256": "o", "Version": "1"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "sub-1_desc-harmonized_T1w.nii.gz"
    path.write_bytes(b"image")
    write_json(sidecar_path(path), {"BidsHarmonize": RECORD})
    return path


def test_a_complete_run(output: Path) -> None:
    assert is_up_to_date(output, **HASHES)


@pytest.mark.parametrize("key", HASHES)
def test_another_input_model_or_option_is_not_complete(output: Path, key: str) -> None:
    assert not is_up_to_date(output, **HASHES | {key: "other"})


def test_without_image_or_sidecar_a_run_is_not_complete(output: Path) -> None:
    sidecar_path(output).rename(output.with_name("kept"))
    assert not is_up_to_date(output, **HASHES)
    output.with_name("kept").rename(sidecar_path(output))
    output.unlink()
    assert not is_up_to_date(output, **HASHES)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"BidsHarmonize": 1}', '{"BidsHarmonize": {}}', "{"])
def test_a_sidecar_of_something_else_is_not_complete(output: Path, content: str) -> None:
    sidecar_path(output).write_text(content)
    assert not is_up_to_date(output, **HASHES)


def test_unhashable_records_are_no_traceback(output: Path) -> None:
    write_json(sidecar_path(output), {"BidsHarmonize": RECORD | {"InputSHA256": ["i"]}})
    assert not is_up_to_date(output, **HASHES)


def test_removing_takes_all_files_of_a_run_and_no_other(output: Path) -> None:
    transform_path(output).write_bytes(b"curves")
    other = output.with_name("sub-1_desc-harmonized_T2w.nii.gz")
    other.write_bytes(b"other")
    remove_output(output)
    assert list(output.parent.iterdir()) == [other]
    remove_output(output)


def test_the_sidecar_is_removed_first(output: Path) -> None:
    output.unlink()
    output.mkdir()
    with pytest.raises(CannotCreate, match=r"T1w\.nii\.gz"):
        remove_output(output)
    assert not sidecar_path(output).exists()
