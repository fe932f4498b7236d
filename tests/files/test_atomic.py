from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.errors import BadData, CannotCreate, InputOutputError
from bids_harmonize.files.atomic import (
    as_json,
    locked_temp_file,
    locked_temp_folder,
    output_error,
    remove_stale_temp_files,
    write_atomically,
    write_json,
)

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


def _left_behind(path: Path) -> Path:
    """What a process leaves that is killed while it writes the file."""
    code = (
        "import os, pathlib, signal, sys; from bids_harmonize.files.atomic import locked_temp_file\n"
        "with locked_temp_file(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    before = set(path.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    (left,) = set(path.parent.iterdir()) - before
    return left


def _age(path: Path, days: float) -> None:
    then = time.time() - 86400 * days
    os.utime(path, (then, then))


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Neither what a running process writes, however long it takes, nor files of another program."""
    left = _left_behind(tmp_path / NAME)
    foreign = [tmp_path / name for name in (".tmp-0-x", ".tmp-of-another-program", f"{left.name[1:]}")]
    for path in foreign:
        path.touch()
        _age(path, 9)
    with write_atomically(tmp_path / NAME) as running:
        _age(running, 9)
        remove_stale_temp_files(tmp_path)
        assert running.exists()
        assert not left.exists()
        assert {*tmp_path.iterdir()} == {running, *foreign}
    assert {*tmp_path.iterdir()} == {tmp_path / NAME, *foreign}


def test_what_another_machine_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """A file system may not tell one machine of another's locks."""
    left = _left_behind(tmp_path / NAME)
    own = left.name.split("-")[1]
    others = left.rename(left.with_name(left.name.replace(own, "0" * len(own))))
    _age(others, 0.9)
    remove_stale_temp_files(tmp_path)
    assert others.exists()
    _age(others, 1.1)
    remove_stale_temp_files(tmp_path)
    assert not others.exists()


def test_where_there_are_no_locks_only_what_is_old_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with write_atomically(tmp_path / NAME) as temporary:
        remove_stale_temp_files(tmp_path)
        temporary.write_text("written")
    assert (tmp_path / NAME).read_text() == "written"
    left = _left_behind(tmp_path / NAME)
    remove_stale_temp_files(tmp_path)
    assert left.exists()
    _age(left, 1.1)
    remove_stale_temp_files(tmp_path)
    assert not left.exists()


def test_only_files_of_the_name_are_removed_and_only_deep_goes_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    here, other, below = (_left_behind(tmp_path / name) for name in ("a[1].json", "a1.json", "below/b.json"))
    remove_stale_temp_files(tmp_path, "a[[]1].json")
    assert [path.exists() for path in (here, other, below)] == [False, True, True]
    remove_stale_temp_files(tmp_path)
    assert [path.exists() for path in (other, below)] == [False, True]
    remove_stale_temp_files(tmp_path, deep=True)
    assert not below.exists()
    remove_stale_temp_files(tmp_path / "nowhere")


def test_a_file_taken_for_abandoned_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, taken = fcntl.flock, []

    def lock(descriptor: int, operation: int) -> None:
        if not taken:
            (path,) = tmp_path.iterdir()
            path.unlink()
            taken.append(path)
        locks(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", lock)
    with locked_temp_file(tmp_path / NAME) as hidden:
        assert [hidden] == taken == [*tmp_path.iterdir()]


def test_a_scratch_folder_is_removed_also_if_its_process_was_killed(tmp_path: Path) -> None:
    with locked_temp_folder(tmp_path) as folder:
        (folder / "x").write_text("y")
        remove_stale_temp_files(tmp_path)
        assert (folder / "x").exists()
    assert list(tmp_path.iterdir()) == []
    left = _left_behind(tmp_path / "scratch")
    left.with_name(f"{left.name}.d").mkdir()
    left.with_name(f"{left.name}.d").joinpath("x").touch()
    remove_stale_temp_files(tmp_path)
    assert list(tmp_path.iterdir()) == []


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
        temporary.unlink()
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
        "import os, pathlib, sys; from bids_harmonize.files.atomic import write_json;"
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
