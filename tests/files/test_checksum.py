from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.checksum import file_sha256, options_hash

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


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for path in (tmp_path / "link", tmp_path / "absent"):
        with pytest.raises(NoInput, match=path.name):
            file_sha256(path)
    with pytest.raises(BadData, match="is not a file"):
        file_sha256(tmp_path)
