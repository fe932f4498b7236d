"""The judge: its layout is read, its convolutions are those of the layout, and Dice is counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_extra import require_benchmark_extra

require_benchmark_extra()

from benchmarks.scans import shared_folder
from benchmarks.tiers.judge import QUANTILES, Judge, dice

pytestmark = pytest.mark.benchmark

SHARED = shared_folder() / "data" / "judge"


def write_network(folder: Path, kernels: list[np.ndarray], dilations: list[int]) -> None:
    """A network in TensorFlow.js' layout; biases are 0."""
    layers: list[dict[str, object]] = [{"class_name": "InputLayer", "config": {}}]
    weights, content = [], b""
    for number, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True)):
        layers.append({"class_name": "Conv3D", "config": {"dilation_rate": [dilation] * 3}})
        if number + 1 < len(kernels):
            layers.append({"class_name": "Activation", "config": {"activation": "relu"}})
        for name, values in (("kernel", kernel), ("bias", np.zeros(kernel.shape[-1]))):
            weights.append({"name": f"{number}/{name}", "shape": list(values.shape), "dtype": "float32"})
            content += values.astype("<f4").tobytes()
    described = {
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"weights": weights, "paths": ["model5.bin"]}],
    }
    (folder / "model5.json").write_text(json.dumps(described))
    (folder / "model5.bin").write_bytes(content)


def test_a_kernel_looks_where_its_layout_says(tmp_path: Path) -> None:
    # The first layer copies the voxel two places further along the third axis of (left, inferior, anterior);
    # the second takes what is bright for class 1.
    shift = np.zeros((3, 3, 3, 1, 1))
    shift[1, 1, 2, 0, 0] = 1
    threshold = np.zeros((1, 1, 1, 1, 3))
    threshold[..., 1] = 1
    write_network(tmp_path, [shift, threshold], [2, 1])
    volume = np.zeros((7, 8, 9), dtype=np.float32)
    volume[3, 5, 4] = 10
    classes = Judge.read(tmp_path, "model5").classes(volume)
    assert classes.shape == volume.shape
    # Anterior is the second axis of the scan.
    assert np.argwhere(classes == 1).tolist() == [[3, 3, 4]]


def test_weights_that_belong_to_no_layer_are_refused(tmp_path: Path) -> None:
    write_network(tmp_path, [np.zeros((1, 1, 1, 1, 3)), np.zeros((1, 1, 1, 3, 3))], [1, 1])
    with (tmp_path / "model5.bin").open("ab") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(ValueError, match="4 bytes"):
        Judge.read(tmp_path, "model5")


def test_dice_by_hand() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1
    assert dice(~a & a, b & ~b) == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no judge in {SHARED}")
@pytest.mark.parametrize("name", QUANTILES)
def test_the_published_networks_are_read(name: str) -> None:
    judge = Judge.read(SHARED, name)
    assert [dilation for *_, dilation in judge.layers] == [1, 2, 4, 8, 16, 8, 4, 2, 1, 1]
    assert judge.layers[-1][0].shape[0] == 3
