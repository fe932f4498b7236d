from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
import pytest

from bids_harmonize.bids.run import MODALITY_OF_SUFFIX, Run, parse_name

Add = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A BIDS dataset without participants."""
    folder = tmp_path / "raw"
    folder.mkdir()
    description = {"Name": "Two sites", "BIDSVersion": "1.11.1"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def add(dataset: Path) -> Add:
    """Add a file to the dataset: JSON from an object, other content from bytes, else a tiny NIfTI image."""

    def write(relative: str, content: object = None) -> Path:
        path = dataset / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            path.write_text(json.dumps(content))
        else:
            image = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4))
            image.header.set_xyzt_units("mm", "sec")
            nib.save(image, path)
        return path

    return write


@pytest.fixture
def run_at(dataset: Path) -> Callable[[str], Run]:
    """The run of a path relative to the dataset; the file need not exist."""

    def make(relative: str) -> Run:
        parsed = parse_name(PurePosixPath(relative).name)
        assert parsed is not None
        entities, suffix, _ = parsed
        modality = MODALITY_OF_SUFFIX[suffix]
        return Run(
            dataset=dataset, path=dataset / relative, entities=entities, suffix=suffix, modality=modality
        )

    return make
