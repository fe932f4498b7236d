"""A trained model: weights, model card and network.

>>> from bids_harmonize import Model
>>> model = Model.load("T1w")
>>> result = model.harmonize(nibabel.load("sub-01_T1w.nii.gz"))
>>> result.image, result.transform, result.summary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from nibabel.nifti1 import Nifti1Image
from torch import Tensor

from bids_harmonize.errors import BadData, is_out_of_memory
from bids_harmonize.imaging.blocks import Blocks
from bids_harmonize.imaging.body_part import shows_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.foreground import Box
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.imaging.nifti import with_voxels, zooms
from bids_harmonize.imaging.orientation import ras_axes
from bids_harmonize.imaging.types import Volume, Voxels
from bids_harmonize.model.bilateral_grid import CHUNK_VOXELS, Cells, splat
from bids_harmonize.model.card import ModelInfo, find_model
from bids_harmonize.model.contrast_detector import ContrastDetector
from bids_harmonize.model.detection import Detection
from bids_harmonize.model.edit_summary import Edit, distribution_distance, summarize_edit
from bids_harmonize.model.loading import (
    check_features,
    load_network,
    load_ood_detector,
    to_device_or_cpu,
    torch_device,
)
from bids_harmonize.model.network import CurveNetwork, global_features, tissue_share
from bids_harmonize.model.ood_detector import OODDetector, OODScore
from bids_harmonize.model.transform import Curve, Field, Transform
from bids_harmonize.threads import one_thread

# When memory runs out, this many times fewer voxels are looked up at once.
CHUNK_REDUCTION = 16
# Curves below this stay finite when a slope is multiplied by a corrupt voxel of up to
# `bilateral_grid.MAX_FINITE`.
MAX_CURVE_VALUE = 1e6


@dataclass(frozen=True, kw_only=True)
class Harmonized:
    """A harmonized image, the transform that made it, and numbers that describe it.

    Attributes
    ----------
    edit
        What harmonization did to the image, in numbers.
    detection
        What the scan shows, found when it is first asked for.
    device
        The device that made the image.
    remarks
        What was done because memory was short.
    """

    image: Nifti1Image
    transform: Transform
    edit: Edit
    detection: Detection
    device: torch.device
    remarks: tuple[str, ...] = ()

    @property
    def voxels(self) -> Voxels:
        """The voxels of the image, three axes."""
        return np.asarray(self.image.dataobj, dtype=np.float32).reshape(self.transform.shape)

    def _receive_field(self, scan: LoadedScan) -> Field:
        """The receive field of a scan at places in its voxels, by its brain; none where there is no brain."""
        brain = self.brain
        found = None if isinstance(brain, NoBrain) else brain.thick.receive_field(scan.block_means)
        if found is None:
            return lambda places: np.zeros(len(places))
        steps, zooms = np.array(scan.blocks.steps), np.array(scan.blocks.zooms)
        return lambda places: found.at(((places + 0.5) / steps - 0.5) * zooms)

    @cached_property
    def block_means(self) -> Volume:
        """The means of the image's blocks."""
        return Blocks.of(self.transform.shape, zooms(self.image)).means(self.voxels)

    @property
    def summary(self) -> dict[str, Any]:
        """What the edit did to the image, as in a sidecar."""
        return self.edit.to_json()

    @property
    def brain(self) -> Brain | NoBrain:
        """Where the brain lies in the scan's blocks (`LoadedScan.block_means`)."""
        return self.detection.brain

    @property
    def ood_score(self) -> OODScore | None:
        """How far the scan is from those that the model is meant for; None if the model cannot tell."""
        return self.detection.ood_score

    @property
    def out_of_distribution(self) -> bool:
        """Whether the model is known not to be meant for such a scan."""
        return self.ood_score is not None and self.ood_score.is_ood

    def sharing(self, scan: LoadedScan, shared: Curve, share: float) -> Self:
        """The same scan with a curve that scans of one protocol share, see `Transform.sharing`."""
        transform = self.transform.sharing(self._receive_field(scan), shared, share)
        output = transform.apply_to_voxels(scan.voxels)
        changed = summarize_edit(scan.voxels, output, scan.scale)
        edit = replace(self.edit, gain=changed.gain, order_violations=changed.order_violations)
        return replace(self, image=with_voxels(scan.image, output), transform=transform, edit=edit)


@dataclass(frozen=True, kw_only=True)
class Model(ModelInfo):
    """Weights and model card.

    Attributes
    ----------
    network
        In evaluation mode, on `device`.
    ood_detector
        Tells scans that the model is not meant for; None if the card has none, as cards of older models.
    """

    network: CurveNetwork
    device: torch.device
    ood_detector: OODDetector | ContrastDetector | None = None

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
        known = find_model(model)
        check_features(known.weights, known.card)
        network, where = to_device_or_cpu(load_network(known.weights), torch_device(device))
        return cls(
            weights=known.weights,
            card=known.card,
            network=network.eval(),
            device=where,
            ood_detector=load_ood_detector(known.card, known.weights),
        )

    def harmonize(self, image: Nifti1Image) -> Harmonized:
        """Bring an image to the intensities of the model's reference group, whatever it shows.

        Whether the model is meant for such an image, `Harmonized.out_of_distribution` tells.

        Parameters
        ----------
        image
            A 3-D magnitude image, of any orientation and voxel size.

        Returns
        -------
        Harmonized
            The image is float32 with the grid and header of the input, and never negative.

        Raises
        ------
        BadData
            The image cannot be read or holds nothing that could be harmonized.
        """
        return self.harmonize_loaded(LoadedScan.of_image(image))

    def harmonize_loaded(
        self, scan: LoadedScan, look: Callable[[], Brain | NoBrain] | None = None
    ) -> Harmonized:
        """Do what `harmonize` does for a scan that was read before.

        Parameters
        ----------
        look
            Finds the brain, if somebody does so already.
        """
        failure: Exception = MemoryError()
        for model, chunk_voxels, remarks in self._attempts():
            try:
                return model._harmonize(scan, chunk_voxels, remarks, look)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                # The traceback would hold on to what fills the memory.
                failure = error.with_traceback(None)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        raise failure

    def _attempts(self) -> Iterator[tuple[Self, int, tuple[str, ...]]]:
        """Ways to harmonize (model, voxels at once, remarks), each with less of the device's memory."""
        yield self, CHUNK_VOXELS, ()
        short = f"the memory of the device {self.device} was too small"
        yield self, CHUNK_VOXELS // CHUNK_REDUCTION, (f"{short}; it was harmonized in smaller parts",)
        if self.device.type != "cpu":
            cpu = torch.device("cpu")
            network = CurveNetwork(**self.network.config)
            network.load_state_dict(self.network.state_dict())
            on_cpu = replace(self, network=network.eval(), device=cpu)
            yield on_cpu, CHUNK_VOXELS, (f"{short}; it was harmonized on the CPU",)

    def _harmonize(
        self,
        scan: LoadedScan,
        chunk_voxels: int,
        remarks: tuple[str, ...],
        look: Callable[[], Brain | NoBrain] | None,
    ) -> Harmonized:
        histogram = self._histogram(scan)
        transform = self._transform(histogram, scan)
        output = transform.apply_to_voxels(scan.voxels, chunk_voxels)
        features = global_features(histogram[None])[0].cpu().numpy()
        distance = distribution_distance(features, self.card.input_distribution)
        edit = replace(
            summarize_edit(scan.voxels, output, scan.scale),
            distance_to_training=round(distance, 3),
            replaced=scan.replaced,
            negative=scan.negative,
        )
        return Harmonized(
            image=with_voxels(scan.image, output),
            transform=transform,
            edit=edit,
            detection=self._detection(scan, histogram, look),
            device=self.device,
            remarks=remarks,
        )

    def score_ood(self, image: Nifti1Image) -> OODScore | None:
        """How unlike the scans that the model is meant for an image is; None if the model cannot tell.

        Raises
        ------
        BadData
            The image cannot be read or holds nothing that could be harmonized.
        """
        scan = LoadedScan.of_image(image)
        return self._detection(scan, self._histogram(scan)).ood_score

    def _detection(
        self, scan: LoadedScan, histogram: Tensor, look: Callable[[], Brain | NoBrain] | None = None
    ) -> Detection:
        return Detection(
            block_means=scan.block_means,
            zooms=scan.blocks.zooms,
            affine=scan.image.affine,
            histogram=histogram.cpu(),
            detector=self.ood_detector,
            is_head=shows_brain(self.card.body_parts),
            look=look,
        )

    def _histogram(self, scan: LoadedScan) -> Tensor:
        """Counts, with the cells in the orientation of the training scans (RAS)."""
        cells = Cells.of_box(self._box(scan), scan.voxels.shape, scan.zooms)
        histogram = splat(torch.from_numpy(scan.voxels), cells, self.device, unit=scan.scale)
        order, flips = ras_axes(scan.image.affine)
        return histogram.permute(0, *(axis + 1 for axis in order)).flip([axis + 1 for axis in flips])

    def _box(self, scan: LoadedScan) -> Box:
        return Box.whole(scan.voxels.shape) if self.network.whole_volume else scan.foreground.box

    def _transform(self, histogram: Tensor, scan: LoadedScan) -> Transform:
        """Predict the curves and turn them as the image lies."""
        with torch.no_grad(), one_thread():
            curves = self.network(histogram[None])[0]
        curves = (self._as_it_lies(curves, scan) * float(self.card.output_scale.unit)).contiguous()
        # The comparison is negated so that it also refuses a maximum that is not a number.
        if not float(curves.max()) < MAX_CURVE_VALUE:
            raise BadData(
                f"the model {self.name} makes no finite intensities of this scan; use another --model"
            )
        x, y, z = scan.voxels.shape
        return Transform(
            curves=curves,
            shape=(x, y, z),
            box=self._box(scan),
            tissue=self._as_it_lies(tissue_share(histogram), scan)[0].float().contiguous(),
            scale=scan.scale,
        )

    @staticmethod
    def _as_it_lies(cells: Tensor, scan: LoadedScan) -> Tensor:
        """Turn ``(channels, right, anterior, superior)`` to the axes of the image."""
        order, flips = ras_axes(scan.image.affine)
        turned = cells.flip([axis + 1 for axis in flips])
        return turned.permute(0, *(order.index(axis) + 1 for axis in range(3)))


def pass_through(scan: LoadedScan) -> Nifti1Image:
    """A copy of a scan on the same grid, float32, its values and the window of its display as they are."""
    copy = with_voxels(scan.image, scan.stored_voxels())
    for name in ("cal_min", "cal_max"):
        copy.header[name] = scan.image.header[name]
    return copy
