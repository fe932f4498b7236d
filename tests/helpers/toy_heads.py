"""Small heads and models that several test modules use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.model.ood_detector import OODDetector, classifier, describe
from bids_harmonize.phantom.space import Grid
from bids_harmonize.simulation.protocols import Protocol
from bids_harmonize.training.reference_group import ReferenceScan
from bids_harmonize.training.schedule import Effort
from bids_harmonize.training.trainer import weights_content

HEAD_GRID = Grid(zooms=(3.5, 3.5, 3.5))
MPRAGE = Protocol(field_strength=3.0, sequence="MPRAGE", tr=2300, te=3, ti=900)
T2_SPIN_ECHO = Protocol(field_strength=3.0, sequence="spin echo", tr=4000, te=100)


# A network small enough to train in milliseconds, and few data to train it on.
TINY = Effort(
    widths=(4, 8),
    context=8,
    max_steps=4,
    checkpoint_steps=2,
    region_voxels=300,
    surroundings_voxels=200,
    air_voxels=100,
    validation_pairs=2,
    distribution_pairs=3,
    ood_scans=16,
)
# Logits of detectors that flag every scan, and none.
ALWAYS, NEVER = 5.0, -5.0


def tiny_network() -> CurveNetwork:
    """The network that is trained with so little effort, untrained."""
    return CurveNetwork(**TINY.network)


def write_model(folder: Path, network: CurveNetwork, name: str) -> Path:
    """Weights and a minimal model card; the path of the weights."""
    path = folder / f"{name}.safetensors"
    path.write_bytes(weights_content(network))
    card: dict[str, Any] = {
        "Name": name,
        "Modality": "T1w",
        "BodyParts": ["BRAIN", "HEAD"],
        "OutputScale": {"Unit": 1000, "Definition": "median of the reference group's white matter"},
        "InputDistribution": {"Mean": [0.5] * (2 * KNOTS), "StandardDeviation": [0.1] * (2 * KNOTS)},
        "SHA256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    return path


def ood_detector(logit: float) -> OODDetector:
    """A detector that gives every scan the same score."""
    count = describe(torch.zeros(KNOTS, 2, 2, 2, dtype=torch.float64)).numel()
    layers = (torch.zeros(1, count), torch.zeros(1), torch.zeros(1, 1), torch.tensor([logit]))
    return OODDetector(
        centre=torch.zeros(count), spread=torch.ones(count), classifier=classifier(*layers), threshold=0.5
    )


def write_detecting_model(folder: Path, logit: float | None, modality: str = "T1w") -> Path:
    """A model that changes every scan, and flags all or none; with None it has no detector."""
    path = write_model(folder, random_network(7), f"{modality}{logit}")
    card = json.loads(path.with_suffix(".json").read_text()) | {"Modality": modality}
    if logit is not None:
        card["Recognizer"] = ood_detector(logit).card()
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


def random_network(seed: int, by_contrast: float = 1) -> CurveNetwork:
    """A tiny network whose curves differ from cell to cell, and so many times as much by contrast."""
    torch.manual_seed(seed)
    network = tiny_network()
    for layer in (network.overall, network.local):
        torch.nn.init.normal_(layer.weight, 0, 0.5)
        torch.nn.init.normal_(layer.bias, 0, 0.5)
    with torch.no_grad():
        network.overall.weight.mul_(by_contrast)
    return network


def ball_scan(seed: int, shape: tuple[int, int, int] = (24, 26, 22)) -> ReferenceScan:
    """A brain of 900 within 600, in scalp of 1200, at 6 mm, with a little noise."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(n) - (n - 1) / 2 for n in shape]
    radius = np.sqrt(sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij")))
    volume = np.select([radius < 4, radius < 7, radius < 8, radius < 10], [900.0, 600.0, 100.0, 1200.0], 0.0)
    noisy = np.hypot(volume + rng.normal(0, 10, shape), rng.normal(0, 10, shape)).astype(np.float32)
    return ReferenceScan(
        name=f"ball-{seed}", volume=noisy, zooms=(6.0, 6.0, 6.0), region=radius < 7, reference_intensity=900.0
    )


def label_map(seed: int = 0, shape: tuple[int, int, int] = (48, 56, 48)) -> NDArray[np.int16]:
    """FreeSurfer's and CHARM's numbers, from the ventricles to the skin; the cortex is folded."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum(np.square(axis / rng.uniform(0.8, 0.9)) for axis in axes))
    angles = [np.arctan2(axes[1], axes[0]), np.arctan2(axes[2], axes[0])]
    folded = radius + 0.04 * np.cos(9 * angles[0] + rng.uniform(0, 6)) * np.cos(8 * angles[1])
    layers = {0.18: 4, 0.28: 10, 0.52: 2, 0.68: 3, 0.74: 24}
    labels = np.select([folded < edge for edge in layers], list(layers.values()), 0)
    shells = {0.82: 515, 0.86: 516, 0.93: 507, 1.0: 511}
    outside = np.select([radius < edge for edge in shells], list(shells.values()), 0)
    return np.where(labels > 0, labels, outside).astype(np.int16)


def write_label_map(
    path: Path, labels: NDArray[np.int16], zooms: tuple[float, ...] = (3.5, 3.5, 3.5)
) -> Path:
    """The label map as a NIfTI file, its axes to the right, front and top."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([*zooms, 1.0])), path)
    return path
