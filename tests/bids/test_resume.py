from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.atomic import write_json
from bids_harmonize.bids.outputs import sidecar_path, transform_path
from bids_harmonize.bids.resume import completed, file_sha256, options_hash, remove_output
from bids_harmonize.errors import BadData, CannotCreate

HASHES = {"input_sha256": "i", "model_sha256": "m", "options_hash": "o"}
RECORD = {"InputSHA256": "i", "ModelSHA256": "m", "OptionsSHA256": "o", "Version": "1"}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "sub-1_desc-harmonized_T1w.nii.gz"
    path.write_bytes(b"image")
    write_json(sidecar_path(path), {"BidsHarmonize": RECORD})
    return path


def test_a_complete_run(output: Path) -> None:
    assert completed(output, **HASHES)


@pytest.mark.parametrize("key", HASHES)
def test_another_input_model_or_option_is_not_complete(output: Path, key: str) -> None:
    assert not completed(output, **HASHES | {key: "other"})


def test_without_image_or_sidecar_a_run_is_not_complete(output: Path) -> None:
    sidecar_path(output).rename(output.with_name("kept"))
    assert not completed(output, **HASHES)
    output.with_name("kept").rename(sidecar_path(output))
    output.unlink()
    assert not completed(output, **HASHES)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"BidsHarmonize": 1}', '{"BidsHarmonize": {}}', "{"])
def test_a_sidecar_of_something_else_is_not_complete(output: Path, content: str) -> None:
    sidecar_path(output).write_text(content)
    assert not completed(output, **HASHES)


def test_unhashable_records_are_no_traceback(output: Path) -> None:
    write_json(sidecar_path(output), {"BidsHarmonize": RECORD | {"InputSHA256": ["i"]}})
    assert not completed(output, **HASHES)


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


OPTIONS = st.dictionaries(
    st.text(max_size=4), st.none() | st.booleans() | st.integers() | st.text(max_size=4)
)


@given(OPTIONS, st.randoms())
def test_the_hash_of_options_does_not_depend_on_their_order(options: dict, random) -> None:
    items = list(options.items())
    random.shuffle(items)
    assert options_hash(dict(items)) == options_hash(options)


@given(OPTIONS, OPTIONS)
def test_different_options_have_different_hashes(one: dict, other: dict) -> None:
    same = {k: (type(v), v) for k, v in one.items()} == {k: (type(v), v) for k, v in other.items()}
    assert (options_hash(one) == options_hash(other)) == same


def test_hash_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"content" * 100_000)
    assert file_sha256(path) == hashlib.sha256(b"content" * 100_000).hexdigest()


def test_a_file_that_was_not_fetched_or_is_none(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(BadData, match="datalad get"):
        file_sha256(tmp_path / "link")
    for path, why in ((tmp_path / "absent", "cannot be read"), (tmp_path, "is not a file")):
        with pytest.raises(BadData, match=why):
            file_sha256(path)
