"""A dataset of one scan, and models that flag all or nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.toy_datasets import head, image_of, write_dataset, write_scan
from tests.helpers.toy_heads import write_detecting_model


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model that changes every scan and flags all of them or none."""
    return partial(write_detecting_model, tmp_path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """One scan, with values that no magnitude image holds and a window for its display."""
    folder = write_dataset(tmp_path / "data")
    voxels = head(1).astype(np.float32)
    voxels[0, 0, :2], voxels[1, 0, :2] = np.nan, -3
    image = image_of(voxels)
    image.header["cal_max"] = 700
    write_scan(folder, "sub-01_T1w.nii.gz", image, {"EchoTime": 0.003})
    return folder
