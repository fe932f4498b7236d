"""Tier J: a judge from outside, a segmentation network that others trained and that no method has seen.

Two small networks of dilated convolutions (brainchop, MIT) tell white and grey matter on T1w scans of 1 mm.
They are given the simulated heads under all protocols, as they are and after every method; Dice is that with
the tissues which the heads were made of. The same network on the same heads, rendered in the contrast of the
reference group by the same scanner, is the ceiling. The networks were trained for T1w scans of many sites,
MPRAGE above all, so that this says how much more like those a scan becomes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.result_rows import Row, summarize
from benchmarks.scans import Mask, Scan, Volume, box_around
from benchmarks.simulated import PROTOCOLS, Subject
from benchmarks.splits import heads
from bids_harmonize.simulation.label_heads import Head

TIER = "J"
CEILING = "ceiling: in the contrast of the reference group"
#: How the networks scale what they are given.
QUANTILES = {"model5": (0.0, 1.0), "model20": (0.05, 0.95)}
#: Their classes, with the tissues of the simulated heads that belong to each.
CLASSES = {"white matter": (1, ("white matter",)), "grey matter": (2, ("grey matter", "deep grey matter"))}
#: The order in memory in which convolutions of few channels take half the time.
FAST = torch.channels_last_3d
#: Air around a head that is given along, mm; the networks take 256 mm, most of it air.
MARGIN_MM = 20.0


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A network as it was published.

    Attributes
    ----------
    layers
        Weights ``(out, in, x, y, z)``, biases, and dilations, one after the other.
    activation
        What stands between them.
    quantiles
        What becomes 0 and 1 of what it is given.
    """

    name: str
    layers: Sequence[tuple[Tensor, Tensor, int]]
    activation: str
    quantiles: tuple[float, float]

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Read the layout of TensorFlow.js: a JSON file that names the tensors, and their values in order."""
        content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        topology = content["modelTopology"]
        described = topology.get("model_config", topology)["config"]["layers"]
        convolutions = [layer["config"] for layer in described if layer["class_name"] == "Conv3D"]
        activations = {
            layer["config"]["activation"] for layer in described if layer["class_name"] == "Activation"
        }
        (manifest,) = content["weightsManifest"]
        tensors = list(_tensors(manifest["weights"], (folder / f"{name}.bin").read_bytes()))
        layers = [
            (kernel.permute(4, 3, 0, 1, 2).contiguous(memory_format=FAST), bias, config["dilation_rate"][0])
            for kernel, bias, config in zip(tensors[::2], tensors[1::2], convolutions, strict=True)
        ]
        (activation,) = activations
        return cls(name=name, layers=layers, activation=activation, quantiles=QUANTILES[name])

    def classes(self, volume: Volume) -> NDArray[np.int64]:
        """The class of every voxel of a scan of 1 mm, axes right, anterior, superior."""
        low, high = np.quantile(volume, self.quantiles)
        scaled = np.clip((volume - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
        # The networks were trained on axes left, inferior, anterior.
        turned = np.ascontiguousarray(scaled[::-1, :, ::-1].transpose(0, 2, 1))
        found = self._forward(torch.from_numpy(turned)[None, None])[0].argmax(dim=0).numpy()
        return np.ascontiguousarray(found.transpose(0, 2, 1)[::-1, :, ::-1])

    def _forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=FAST)
        between = nn.ELU() if self.activation == "elu" else nn.ReLU()
        last = len(self.layers) - 1
        with torch.no_grad():
            for number, (kernel, bias, dilation) in enumerate(self.layers):
                x = F.conv3d(x, kernel, bias, padding=dilation * (kernel.shape[-1] // 2), dilation=dilation)
                x = x if number == last else between(x)
        return x


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods and of the ceiling; T1w only."""
    folder = data.shared / "data" / "judge"
    if data.modality != "T1w" or not folder.is_dir():
        return []
    subjects = [
        Subject.of(Head.read(data.shared / "data" / "labels" / f"{name}_dseg.nii.gz", (1, 1, 1)), "T1w")
        for name in heads(data.development)
    ]
    protocols = list(PROTOCOLS["T1w"])
    judges = [Judge.read(folder, name) for name in data.judges]
    ceiling = [(in_reference_contrast(subject, protocols[0]).volume, subject) for subject in subjects]
    rows = [row for judge in judges for row in _rows(judge, CEILING, ceiling)]
    for method in methods:
        harmonized = [
            (method.apply(subject.scan(protocol)), subject) for subject in subjects for protocol in protocols
        ]
        rows += [row for judge in judges for row in _rows(judge, method.name, harmonized)]
    return rows


def in_reference_contrast(subject: Subject, protocol: str) -> Scan:
    """What the scanner of a protocol makes of the person in the contrast of the reference group."""
    gain = subject.white[protocol] / subject.white["reference"]
    return subject.scan(protocol, subject.renderings["reference"] * np.float32(gain), tag="-reference")


def dice(found: Mask, truth: Mask) -> float:
    """Twice what both share over what they hold together."""
    together = float(np.sum(found)) + float(np.sum(truth))
    return 2 * float(np.sum(found & truth)) / max(1.0, together)


def _rows(judge: Judge, method: str, scans: Sequence[tuple[Volume, Subject]]) -> list[Row]:
    values: dict[str, list[float]] = {tissue: [] for tissue in CLASSES}
    for volume, subject in scans:
        box = box_around(subject.inside, subject.zooms, MARGIN_MM)
        found = judge.classes(volume[box])
        for tissue, (number, _) in CLASSES.items():
            values[tissue].append(dice(found == number, _truth(subject, tissue)[box]))
    return [
        summarize(
            TIER, "T1w", f"{judge.name}: {tissue}, Dice", method, numbers, better="higher", scans=len(numbers)
        )
        for tissue, numbers in values.items()
    ]


def _truth(subject: Subject, tissue: str) -> Mask:
    return np.asarray(sum(subject.shares[name] for name in CLASSES[tissue][1]) > 0.5, dtype=bool)


def _tensors(described: Sequence[dict[str, Any]], content: bytes) -> Iterator[Tensor]:
    start = 0
    for entry in described:
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(content, dtype="<f4", count=count, offset=start)
        start += values.nbytes
        yield torch.from_numpy(values.reshape(entry["shape"]).copy())
    if start != len(content):
        raise ValueError(f"{len(content) - start} bytes of weights belong to no layer")
