from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.bids.atomic import as_json, output_error, write_atomically, write_json
from bids_harmonize.errors import BadData, CannotCreate, InputOutputError

NAME = "sub-01_desc-harmonized_T1w.nii.gz"


def test_the_temporary_name_is_hidden_beside_the_file_and_keeps_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / NAME
    with write_atomically(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".") and temporary.name.endswith(".nii.gz")
        assert not path.exists()
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), temporary)
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    assert list(path.parent.iterdir()) == [path]


def test_the_longest_name_that_a_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 248 + ".nii.gz")
    with write_atomically(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_a_file_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@given(
    error=st.sampled_from([ValueError, KeyboardInterrupt, SystemExit, BadData, MemoryError]),
    content=st.none() | st.binary(max_size=9),
    old=st.none() | st.binary(max_size=9),
)
def test_any_exception_leaves_the_folder_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    error: type[BaseException],
    content: bytes | None,
    old: bytes | None,
) -> None:
    path = tmp_path_factory.mktemp("out") / NAME
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(error), write_atomically(path) as temporary:
        if content is not None:
            temporary.write_bytes(content)
        raise error
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == (
        {} if old is None else {NAME: old}
    )


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (errno.ENOSPC, InputOutputError),
        (errno.EDQUOT, InputOutputError),
        (errno.EIO, InputOutputError),
        (errno.EACCES, CannotCreate),
        (errno.EROFS, CannotCreate),
        (errno.ENOTDIR, CannotCreate),
    ],
)
def test_errors_of_the_system_get_their_name(tmp_path: Path, number: int, named: type[Exception]) -> None:
    path = tmp_path / NAME
    with pytest.raises(named, match=NAME) as caught, write_atomically(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    with (
        pytest.raises(InputOutputError, match="No space left"),
        write_atomically(tmp_path / NAME) as temporary,
    ):
        temporary.symlink_to("/dev/full")
        temporary.write_text("x" * 100)
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_parent_folder_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(CannotCreate, match="file"):
        write_json(tmp_path / "file" / "x.json", {})
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_in_the_place_of_the_file_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(CannotCreate, match=r"x\.json"):
        write_json(tmp_path / "x.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_an_error_without_number_is_told_too(tmp_path: Path) -> None:
    assert "odd" in str(output_error(tmp_path, OSError("odd")))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_mode_respects_the_umask(tmp_path: Path, umask: int) -> None:
    code = (
        "import os, pathlib, sys; from bids_harmonize.bids.atomic import write_json;"
        "os.umask(int(sys.argv[2])); write_json(pathlib.Path(sys.argv[1]), {})"
    )
    path = tmp_path / "x.json"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, str(path), str(umask)], check=True, env=environment)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_json_is_utf8_in_order_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"z": "Zürich", "a": 1})
    assert path.read_bytes() == '{\n  "z": "Zürich",\n  "a": 1\n}\n'.encode()
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text(encoding="utf-8"))["a"] == 1
    assert list(tmp_path.iterdir()) == [path]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers()), st.text())
def test_a_list_of_numbers_takes_one_line(numbers: list[float], other: str) -> None:
    content = {"numbers": numbers, "deeper": {"numbers": numbers, "texts": [other, "1,\n2"]}, "text": other}
    text = as_json(content)
    assert json.loads(text) == content
    assert f'"numbers": {json.dumps(numbers)},' in text.splitlines()[1]
