"""What the README shows does what it says."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.toy_datasets import (
    Result,
    harmonize,
    harmonize_image,
    output_of,
    write_dataset,
    write_scan,
)

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_PAGE = (ROOT / "docs" / "usage" / "python.md").read_text(encoding="utf-8")
NAME = "sub-01_T1w.nii.gz"
MAX_BYTES = 8000


def block(marker: str) -> str:
    """The code block behind a marker, the only one of its name."""
    (found,) = re.findall(rf"<!-- {marker} -->\n```[a-z]+\n(.*?)```", README, re.DOTALL)
    return str(found)


def call(marker: str) -> Result:
    """What the one command in a block gives back, in this process."""
    (line,) = block(marker).splitlines()
    program, *arguments = shlex.split(line)
    return {"bids-harmonize": harmonize, "bids-harmonize-image": harmonize_image}[program](*arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a dataset and a copy of its only scan."""
    scan = write_scan(write_dataset(tmp_path / "my_dataset"), NAME)
    shutil.copy(scan, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(path: Path) -> bytes:
    """Header and voxels, however they are compressed."""
    return gzip.decompress(path.read_bytes())


def test_dataset_file_and_python_give_the_same_voxels(folder: Path) -> None:
    assert call("dataset-command").code == 0
    expected = stored(output_of(folder / "derivatives", NAME))
    harmonized = folder / "harmonized.nii.gz"
    assert call("image-command").code == 0
    assert stored(harmonized) == expected
    harmonized.unlink()
    names: dict[str, object] = {}
    exec(compile(block("python-code"), "README.md", "exec"), names)
    assert stored(harmonized) == expected
    result = names["result"]
    for word in ("transform", "summary", "out_of_distribution"):
        assert f"`result.{word}" in PYTHON_PAGE
        assert hasattr(result, word)


def test_it_fits_on_a_screen() -> None:
    assert len(README.encode()) <= MAX_BYTES


def test_links_lead_to_files_and_headings() -> None:
    links = re.findall(r"\]\((?!https?://)([^)]+)\)", README)
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).is_file(), link
        if anchor:
            assert anchor in _anchors(ROOT / path), link


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
