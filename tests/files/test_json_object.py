from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b'\xef\xbb\xbf{"a": 1}', "byte-order mark"),
        ('{"a": 1}'.encode("utf-16"), "byte-order mark"),
        ('{"a": "Zürich"}'.encode("latin-1"), "not UTF-8"),
        (b'{"a": 1,}', "not valid JSON"),
        (b"\x00\x01", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b'[{"a": 1}]', "list"),
        (b"null", "NoneType"),
        (b'"text"', "str"),
    ],
)
def test_what_is_not_an_object_is_one_sentence_with_the_file(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "sub-01_T1w.json"
    path.write_bytes(content)
    with pytest.raises(BadData, match=said) as caught:
        read_object(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_no_input(tmp_path: Path) -> None:
    dangling, loop = tmp_path / "dangling.json", tmp_path / "loop.json"
    dangling.symlink_to("nowhere")
    loop.symlink_to(loop)
    for path in (dangling, loop, tmp_path / "absent.json", tmp_path):
        with pytest.raises(NoInput, match=path.name):
            read_object(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "T1w.json"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(NoInput, match=path.name):
        read_object(path)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_object_or_bad_data(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content.decode("utf-8"))
    except ValueError:
        expected = None
    if isinstance(expected, dict):
        assert read_object(path) == expected
    else:
        with pytest.raises(NoInput if content.startswith(b"/annex/objects/") else BadData):
            read_object(path)
