"""A trained model: weights, model card and network.

>>> from bids_harmonize.model import Model
>>> model = Model.load("T1w")
>>> result = model.harmonize(nibabel.load("sub-01_T1w.nii.gz"))
>>> result.image, result.transform, result.summary
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from bids_harmonize.bids.fields import is_positive, list_of
from bids_harmonize.card import Carded, find_model
from bids_harmonize.errors import BadData, UsageError, lacks_memory
from bids_harmonize.grid import CHUNK_VOXELS, KNOTS, Cells, slice_volume, splat
from bids_harmonize.image import Voxels, as_magnitude, intensity_scale, read_voxels, with_voxels, zooms
from bids_harmonize.network import CurveNetwork, global_features
from bids_harmonize.recognition import Recognition, Recognizer
from bids_harmonize.safety import distribution_distance, summarize_edit

log = logging.getLogger("bids_harmonize")

# Where memory is short.
FEWER_VOXELS = 16
# Products of slopes of such curves with corrupt voxels, up to `grid.LARGEST`, are still finite.
HIGHEST_CURVE = 1e6


@dataclass(frozen=True, kw_only=True)
class Transform:
    """The whole edit of one scan: a grid of tone curves.

    Attributes
    ----------
    curves
        Output intensities at the knots, ``(KNOTS, X, Y, Z)`` float32, on the reference group's scale; cells
        are ordered as the axes of the image.
    shape
        Shape of the image, three axes.
    scale
        Intensity of the image that the curves call 1.
    """

    curves: Tensor
    shape: tuple[int, int, int]
    scale: float

    def apply(self, image: Nifti1Image) -> Nifti1Image:
        """Apply the edit to the image that it was made for; the same voxels on the same device.

        Raises
        ------
        BadData
            The image has another shape, or cannot be read.
        """
        voxels = as_magnitude(read_voxels(image))[0]
        if voxels.shape != self.shape:
            raise BadData(f"the transform is for an image of {self.shape} voxels, not {voxels.shape}")
        return with_voxels(image, self.apply_to_voxels(voxels))

    def apply_to_voxels(self, voxels: Voxels, chunk_voxels: int | None = None) -> Voxels:
        """The same for bare voxels, not negative and all finite, about so many at once."""
        _, x, y, z = self.curves.shape
        cells = Cells(self.shape, (x, y, z))
        with torch.no_grad():
            result = slice_volume(self.curves, cells, torch.from_numpy(voxels), chunk_voxels, unit=self.scale)
        return np.asarray(result.numpy())

    def save(self, path: Path) -> None:
        """Write the transform as safetensors."""
        # One entry: safetensors writes several in random order.
        metadata = {"transform": json.dumps({"shape": self.shape, "scale": self.scale.hex()})}
        # Not save_file, whose files are for their owner's eyes only.
        path.write_bytes(save({"curves": self.curves.cpu().contiguous()}, metadata=metadata))

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """Read a transform that `save` wrote.

        Raises
        ------
        BadData
            The file is no such transform.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads(file.metadata()["transform"])
                curves = file.get_tensor("curves").to(device)
            x, y, z = metadata["shape"]
            transform = cls(curves=curves, shape=(x, y, z), scale=float.fromhex(metadata["scale"]))
            transform.check()
            return transform
        except (
            SafetensorError,
            LookupError,
            TypeError,
            ArithmeticError,
            ValueError,
            RecursionError,
            OSError,
        ) as error:
            raise BadData(f"{path} is no saved transform; make it with --save-transform") from error

    def check(self) -> None:
        """Raise a `ValueError` if this cannot be the edit of an image."""
        curves, shape = self.curves, self.shape
        if curves.dtype != torch.float32 or curves.ndim != 4 or len(curves) != KNOTS:
            raise ValueError(f"curves of {curves.dtype}, {tuple(curves.shape)}")
        if not all(isinstance(n, int) and 1 <= m <= n for n, m in zip(shape, curves.shape[1:], strict=True)):
            raise ValueError(f"{tuple(curves.shape[1:])} cells for {shape} voxels")
        if not (0 < self.scale < math.inf and torch.isfinite(curves).all()):
            raise ValueError("curves or scale are not finite")


@dataclass(frozen=True, kw_only=True)
class Harmonized:
    """A harmonized image, the transform that made it, and numbers that describe it.

    Attributes
    ----------
    recognition
        How unlike the scans that the model is meant for the input is; None if the model cannot tell.
    device
        Where it was made.
    remarks
        What was done for want of memory.
    """

    image: Nifti1Image
    transform: Transform
    summary: dict[str, Any]
    recognition: Recognition | None
    device: torch.device
    remarks: tuple[str, ...] = ()

    @property
    def out_of_distribution(self) -> bool:
        """Whether the model is known not to be meant for such a scan."""
        return self.recognition is not None and self.recognition.flagged


@dataclass(frozen=True, kw_only=True)
class Model(Carded):
    """Weights and model card.

    Attributes
    ----------
    network
        In evaluation mode, on `device`.
    recognizer
        Tells scans that the model is not meant for; None if the card, an older one, holds none.
    """

    network: CurveNetwork
    device: torch.device
    recognizer: Recognizer | None = None

    @classmethod
    def load(cls, model: str | Path, device: str = "auto") -> Self:
        """Load a bundled model by its name, or any model by the path of its ``.safetensors`` file.

        The model card, a JSON file of the same name, must lie beside the weights.

        Raises
        ------
        UsageError
            There is no bundled model of that name, or no such device.
        NoInput, BadData
            The file or its card is missing, damaged, or does not fit the other.
        """
        path, known = find_model(model)
        _check_features(path, known.card)
        network, where = _placed(_load_network(path), torch_device(device))
        return cls(
            network=network.eval(),
            card=known.card,
            sha256=known.sha256,
            device=where,
            recognizer=_recognizer(known.card, path),
        )

    def harmonize(self, image: Nifti1Image, voxels: Voxels | None = None) -> Harmonized:
        """Bring an image to the intensities of the model's reference group, whatever it shows.

        Whether the model is meant for such an image, `Harmonized.out_of_distribution` tells.

        Parameters
        ----------
        image
            A 3-D magnitude image, of any orientation and voxel size.
        voxels
            Its voxels, where `read_voxels` has read them before.

        Returns
        -------
        Harmonized
            The image is float32 with the grid and header of the input, and never negative.

        Raises
        ------
        BadData
            The image cannot be read or holds nothing that could be harmonized.
        """
        magnitude = as_magnitude(read_voxels(image) if voxels is None else voxels)
        failure: Exception = MemoryError()
        for model, chunk_voxels, remarks in self._attempts():
            try:
                return model._harmonize(image, magnitude, chunk_voxels, remarks)
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                # The traceback would hold on to what fills the memory.
                failure = error.with_traceback(None)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise failure

    def _attempts(self) -> Iterator[tuple[Self, int, tuple[str, ...]]]:
        """The model, voxels at once and what is to be said of it: each needs less of the device's memory."""
        yield self, CHUNK_VOXELS, ()
        short = f"the memory of the device {self.device} was too small"
        yield self, CHUNK_VOXELS // FEWER_VOXELS, (f"{short}; it was harmonized in smaller parts",)
        if self.device.type != "cpu":
            cpu = torch.device("cpu")
            network = CurveNetwork(**self.network.config)
            network.load_state_dict(self.network.state_dict())
            on_cpu = replace(self, network=network.eval(), device=cpu)
            yield on_cpu, CHUNK_VOXELS, (f"{short}; it was harmonized on the CPU",)

    def _harmonize(
        self,
        image: Nifti1Image,
        magnitude: tuple[Voxels, int, int],
        chunk_voxels: int,
        remarks: tuple[str, ...],
    ) -> Harmonized:
        voxels, replaced, negative = magnitude
        scale = intensity_scale(voxels)
        histogram = self._histogram(image, voxels, scale)
        transform = self._transform(histogram, image.affine, voxels.shape, scale)
        output = transform.apply_to_voxels(voxels, chunk_voxels)
        features = global_features(histogram[None])[0].cpu().numpy()
        summary = summarize_edit(voxels, output, scale) | {
            "DistanceToTrainingDistribution": round(
                distribution_distance(features, self.card["InputDistribution"]), 3
            ),
            "IntensityScale": scale,
            "NonFiniteVoxelsSetToZero": replaced,
            "NegativeVoxelsSetToZero": negative,
        }
        return Harmonized(
            image=with_voxels(image, output),
            transform=transform,
            summary=summary,
            recognition=self._recognize(histogram),
            device=self.device,
            remarks=remarks,
        )

    def recognize(self, image: Nifti1Image) -> Recognition | None:
        """How unlike the scans that the model is meant for an image is; None if the model cannot tell.

        Raises
        ------
        BadData
            The image cannot be read or holds nothing that could be harmonized.
        """
        voxels = as_magnitude(read_voxels(image))[0]
        return self._recognize(self._histogram(image, voxels, intensity_scale(voxels)))

    def _recognize(self, histogram: Tensor) -> Recognition | None:
        return None if self.recognizer is None else self.recognizer.recognize(histogram)

    def _histogram(self, image: Nifti1Image, voxels: Voxels, scale: float) -> Tensor:
        """Counts, with the cells in the orientation of the training scans (RAS)."""
        cells = Cells.of(voxels.shape, zooms(image))
        histogram = splat(torch.from_numpy(voxels), cells, self.device, unit=scale)
        order, flips = _to_ras(image.affine)
        return histogram.permute(0, *(axis + 1 for axis in order)).flip([axis + 1 for axis in flips])

    def _transform(
        self, histogram: Tensor, affine: np.ndarray, shape: tuple[int, ...], scale: float
    ) -> Transform:
        """Predict the curves and turn them as the image lies."""
        order, flips = _to_ras(affine)
        with torch.no_grad(), _one_thread():
            curves = self.network(histogram[None])[0]
        back = curves.flip([axis + 1 for axis in flips]).permute(
            0, *(order.index(axis) + 1 for axis in range(3))
        )
        curves = (back * float(self.card["OutputScale"]["Unit"])).contiguous()
        # Also where it is not a number.
        if not float(curves.max()) < HIGHEST_CURVE:
            raise BadData(
                f"the model {self.name} makes no finite intensities of this scan; use another --model"
            )
        x, y, z = shape
        return Transform(curves=curves, shape=(x, y, z), scale=scale)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of floating-point numbers in one order: the same voxels, however many threads there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def unchanged(image: Nifti1Image) -> Nifti1Image:
    """A copy of an image on the same grid, float32, its values and the window of its display as they are."""
    copy = with_voxels(image, read_voxels(image))
    for name in ("cal_min", "cal_max"):
        copy.header[name] = image.header[name]
    return copy


def torch_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    UsageError
        There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}; use --device cpu, cuda or auto") from error
    known = device.type == "cpu" or (
        device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    )
    if not known:
        raise UsageError(f"there is no device {name} here; use --device cpu or auto")
    # Convolutions in TF32, and their autotuning, would change voxels from GPU to GPU and from run to run.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return device


def _check_features(path: Path, card: Mapping[str, Any]) -> None:
    wanted = {key: 2 * KNOTS for key in ("Mean", "StandardDeviation")}
    if {key: len(card["InputDistribution"][key]) for key in wanted} != wanted:
        raise BadData(
            f"{path.with_suffix('.json')}: InputDistribution must hold {2 * KNOTS} numbers of each kind"
        )


def _load_network(path: Path) -> CurveNetwork:
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
        weights = load_file(path)
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            raise ValueError("weights that are not finite")
        network = _network(config, weights)
        network.load_state_dict(weights)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        if lacks_memory(error):
            raise MemoryError from error
        raise BadData(f"{path} holds no weights of this network as safetensors; train it anew") from error
    return network


def _placed(network: CurveNetwork, device: torch.device) -> tuple[CurveNetwork, torch.device]:
    """The network on the device, or on the CPU where that has no memory left."""
    try:
        return network.to(device), device
    except RuntimeError as error:
        if device.type == "cpu" or not lacks_memory(error):
            raise
    log.warning("the device %s has no memory left; the CPU is used instead", device)
    return network.to("cpu"), torch.device("cpu")


def _network(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> CurveNetwork:
    """The network of a file; a `ValueError`, before it takes any memory, if the weights do not fit in."""
    widths, context = config["widths"], config["context"]
    # Every level has weights of its own.
    if not list_of(is_positive)(widths) or not 0 < len(widths) <= len(weights):
        raise ValueError(f"widths {widths}")
    with torch.device("meta"):
        wanted = CurveNetwork(widths=tuple(widths), context=context).state_dict()
    if {name: tensor.shape for name, tensor in wanted.items()} != {
        name: tensor.shape for name, tensor in weights.items()
    }:
        raise ValueError("weights of other shapes")
    return CurveNetwork(widths=tuple(widths), context=context)


def _recognizer(card: Mapping[str, Any], path: Path) -> Recognizer | None:
    if card.get("Recognizer") is None:
        return None
    try:
        return Recognizer.of_card(card["Recognizer"])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise BadData(f"the model card of {path} holds a damaged Recognizer; remove or restore it") from error


def _to_ras(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """Array axes in the order right, anterior, superior, and those of the new axes that must be flipped."""
    orientation = nib.orientations.io_orientation(affine)
    order = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
    flips = [axis for axis in range(3) if orientation[order[axis], 1] < 0]
    return order, flips
