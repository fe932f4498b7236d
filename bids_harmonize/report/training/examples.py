"""Examples of what a model does, as pictures: a slice of the scan altered, harmonized and original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bids_harmonize.imaging.slices import fullest_slice, slice_at, slice_axis, slice_extent
from bids_harmonize.imaging.types import Volume
from bids_harmonize.report.components.pictures import data_uri, grey_png
from bids_harmonize.report.training.reference_group import WINDOW_QUANTILE
from bids_harmonize.training.run import ExamplePair


@dataclass(frozen=True, kw_only=True)
class ExamplePicture:
    """A slice of one of the images of an example.

    Attributes
    ----------
    label
        Which image it is.
    source
        The picture, as a data URI.
    ratio
        Its width over its height, in millimetres.
    agreement
        Agreement with the original, dB; None for the original itself.
    """

    label: str
    source: str
    ratio: float
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class Example:
    """A scan that is shown, whether it was held out, its pictures, and how it was altered."""

    name: str
    held_out: bool
    pictures: Sequence[ExamplePicture]
    alterations: Sequence[str]


def example(pair: ExamplePair, *, held_out: bool) -> Example:
    """The pictures of a pair, in one window that is set by the original."""
    rescaled = pair.rescaled
    window = float(np.quantile(pair.target[pair.region], WINDOW_QUANTILE))
    shown = (
        ("Altered", rescaled, pair.agreement(rescaled)),
        ("Harmonized", pair.output, pair.agreement(pair.output)),
        ("Original", pair.target, None),
    )
    pictures = []
    for label, volume, agreement in shown:
        plane, ratio = slice_of_pair(volume, pair)
        source = data_uri(grey_png(plane, window))
        pictures.append(ExamplePicture(label=label, source=source, ratio=ratio, agreement=agreement))
    return Example(name=pair.name, held_out=held_out, pictures=pictures, alterations=pair.alterations)


def slice_of_pair(volume: Volume, pair: ExamplePair) -> tuple[Volume, float]:
    """The slice that shows most of the region, and its width over its height."""
    if volume.ndim == 2:
        across, upwards = (n * zoom for n, zoom in zip(volume.shape, pair.zooms, strict=True))
        return volume, across / upwards
    axis = slice_axis(pair.zooms)
    across, upwards = slice_extent(volume.shape, pair.zooms, axis)
    return slice_at(volume, axis, fullest_slice(pair.region, axis)), across / upwards
