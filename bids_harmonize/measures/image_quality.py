"""Image-quality metrics without a reference, as MRIQC defines them (Esteban et al. 2017).

Esteban O et al., PLOS ONE 12(9):e0184661, doi:10.1371/journal.pone.0184661. Two things differ, so that
nothing but the scan is needed: masks come from thresholds, and the bias field from smoothing instead of N4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from bids_harmonize.imaging.masks import tissue_mask
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.types import Array

# This blur is wide enough that the skin's blur, chemical shift and the nearest ringing do not count as air.
BODY_BLUR_MM = 3.0
# Receive fields vary over decimetres; gyri and the gaps between them over centimetres.
FIELD_BLUR_MM = 20.0
# MRIQC measures nothing in smaller masks either.
MIN_MASK_VOXELS = 1000


class NotMeasured(Exception):
    """A metric cannot be measured in this scan; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class MetricInputs:
    """What metrics are measured on.

    Attributes
    ----------
    volume
        ``(x, y, z)``, in any unit.
    zooms
        Voxel size in mm.
    region
        The anatomy of interest.
    body
        All tissue.
    air
        What surrounds the body, without what was set to 0.
    blank
        What was set to 0.
    white, grey
        The two tissues between which there should be contrast; None where they are not known.
    """

    volume: Volume
    zooms: tuple[float, float, float]
    region: Mask
    body: Mask
    air: Mask
    blank: Mask
    white: Mask | None
    grey: Mask | None

    def tissue(self, mask: Mask | None) -> Array:
        """Intensities in the mask of a tissue, or `NotMeasured`."""
        if mask is None:
            raise NotMeasured("no tissue of one kind is known in this part of the body")
        return self._values(mask, "too little of the tissue was found")

    def surroundings(self) -> Array:
        """Intensities of the air, which is noise, or `NotMeasured`."""
        values = self._values(self.air, "there is too little air around the body, or it was set to 0")
        if values.std() == 0:
            raise NotMeasured("the air around the body holds no noise")
        return values

    def _values(self, mask: Mask, problem: str) -> Array:
        values = self.volume[mask].astype(np.float64)
        if values.size < MIN_MASK_VOXELS:
            raise NotMeasured(problem)
        return values


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The metrics of one scan by name; those that could not be measured, with the reason."""

    values: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


UNMEASURED = Quality()


def measure_quality(
    volume: Volume,
    zooms: tuple[float, float, float],
    region: Mask,
    tissues: tuple[Mask, Mask] | None = None,
) -> Quality:
    """Measure all of `QUALITY_METRICS` on one magnitude volume.

    Parameters
    ----------
    volume
        (x, y, z), finite, not negative; in any unit.
    zooms
        Voxel size in mm.
    region
        The anatomy of interest: the brain of a head.
    tissues
        White and grey matter; None where the body part has no tissues that a threshold finds.
    """
    inputs = _metric_inputs(volume, zooms, region, tissues)
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, metric in QUALITY_METRICS.items():
        try:
            values[name] = _positive(metric.of(inputs))
        except NotMeasured as reason:
            missing[name] = str(reason)
    return Quality(values=values, missing=missing)


def signal_to_noise(inputs: MetricInputs) -> float:
    """Mean over standard deviation of white matter.

    Magnotta & Friedman 2006, doi:10.1007/s10278-006-0264-x.
    """
    white = inputs.tissue(inputs.white)
    return _ratio(white.mean(), white.std(ddof=1))


def signal_to_air(inputs: MetricInputs) -> float:
    """Signal over the noise of the air, which is Rayleigh's (Dietrich et al. 2007, doi:10.1002/jmri.20969).

    mean / (sqrt(2 / (4 - pi)) * standard deviation of air), in white matter or else in the region.
    """
    signal = inputs.tissue(inputs.region if inputs.white is None else inputs.white)
    return _ratio(signal.mean(), math.sqrt(2 / (4 - math.pi)) * inputs.surroundings().std())


def contrast_to_noise(inputs: MetricInputs) -> float:
    """Difference of white and grey matter over the noise of both and of air (Magnotta & Friedman 2006).

    sqrt(variance of white + of grey + of air); air that cannot be measured adds nothing.
    """
    white, grey = inputs.tissue(inputs.white), inputs.tissue(inputs.grey)
    try:
        air = inputs.surroundings().var()
    except NotMeasured:
        air = 0.0
    return _ratio(abs(white.mean() - grey.mean()), math.sqrt(white.var() + grey.var() + air))


def entropy_focus(inputs: MetricInputs) -> float:
    """Shannon's entropy of the voxels, 1 where all are equal (Atkinson et al. 1997, doi:10.1109/42.650886).

    Ghosts and blur spread energy over the image and raise it. Voxels that were blanked do not count.
    """
    values = inputs.volume[~inputs.blank].astype(np.float64)
    if values.size < MIN_MASK_VOXELS:
        raise NotMeasured("almost all of the volume is 0")
    share = values[values > 0] / np.sqrt(np.sum(values**2))
    return float(-np.sum(share * np.log(share)) / (math.sqrt(values.size) * math.log(math.sqrt(values.size))))


def energy_ratio(inputs: MetricInputs) -> float:
    """Mean energy of the body over that of the air (Shehzad et al. 2015).

    doi:10.3389/conf.fnins.2015.91.00047. Means, not MRIQC's medians: those of air are a few steps of a
    coarsely stored scan.
    """
    body = inputs.tissue(inputs.body)
    return _ratio(float(np.mean(body**2)), float(np.mean(inputs.surroundings() ** 2)))


def bias_strength(inputs: MetricInputs) -> float:
    """Spread of the bias field: 95th minus 5th percentile, over the median.

    MRIQC takes the field from N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908). Here it is the mean
    logarithm of white matter within a Gaussian of `FIELD_BLUR_MM`. Of several tissues together it would be
    the anatomy.
    """
    inputs.tissue(inputs.white)
    white = np.asarray(inputs.white) & (inputs.volume > 0)
    box = ndimage.find_objects(white.astype(np.uint8))[0]
    white, volume = white[box], inputs.volume[box]
    sigma = [FIELD_BLUR_MM / zoom for zoom in inputs.zooms]
    logs = np.log(volume, where=white, out=np.zeros_like(volume))
    weight = ndimage.gaussian_filter(white.astype(np.float32), sigma, mode="constant")
    bias = np.exp(ndimage.gaussian_filter(logs, sigma, mode="constant")[white] / weight[white])
    low, middle, high = np.percentile(bias, [5, 50, 95])
    return _ratio(high - low, middle)


@dataclass(frozen=True, kw_only=True)
class QualityMetric:
    """A metric of image quality, and what its values say.

    Attributes
    ----------
    of
        The function that measures it.
    more_is_better
        Whether a higher value is a better one.
    label
        Its name.
    strength, weakness
        What a good and what a bad value say of a scan.
    """

    of: Callable[[MetricInputs], float]
    more_is_better: bool
    label: str
    strength: str
    weakness: str


QUALITY_METRICS = {
    "snr": QualityMetric(
        of=signal_to_noise,
        more_is_better=True,
        label="signal-to-noise ratio of white matter",
        strength="even white matter",
        weakness="uneven white matter",
    ),
    "snrd": QualityMetric(
        of=signal_to_air,
        more_is_better=True,
        label="signal-to-noise ratio against air",
        strength="little noise in the air",
        weakness="noise or ghosts in the air",
    ),
    "cnr": QualityMetric(
        of=contrast_to_noise,
        more_is_better=True,
        label="contrast-to-noise ratio of white and grey matter",
        strength="much contrast to noise",
        weakness="little contrast to noise",
    ),
    "efc": QualityMetric(
        of=entropy_focus,
        more_is_better=False,
        label="entropy focus criterion",
        strength="sharp, without ghosts",
        weakness="ghosts or blur",
    ),
    "fber": QualityMetric(
        of=energy_ratio,
        more_is_better=True,
        label="foreground-background energy ratio",
        strength="little energy in the air",
        weakness="energy in the air",
    ),
    "inu": QualityMetric(
        of=bias_strength,
        more_is_better=False,
        label="bias-field strength",
        strength="weak bias field",
        weakness="strong bias field",
    ),
}


def format_significant(value: float) -> str:
    """A number for readers: three digits, or all of those before the point, and never an exponent."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _metric_inputs(
    volume: Volume,
    zooms: tuple[float, float, float],
    region: Mask,
    tissues: tuple[Mask, Mask] | None,
) -> MetricInputs:
    body = tissue_mask(volume, zooms, BODY_BLUR_MM)
    around = ~np.asarray(ndimage.binary_fill_holes(body | region), dtype=bool)
    # Noise is 0 here and there in a coarsely stored scan, but never in a whole neighbourhood.
    blank = np.asarray(ndimage.grey_closing(volume, size=3) == 0, dtype=bool)
    white, grey = tissues or (None, None)
    return MetricInputs(
        volume=volume,
        zooms=zooms,
        region=region,
        body=body,
        air=around & ~blank,
        blank=blank,
        white=white,
        grey=grey,
    )


def _ratio(above: float, below: float) -> float:
    if not below > 0:
        raise NotMeasured("there is no noise to divide by")
    return float(above / below)


def _positive(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise NotMeasured("the measure has no meaning for this scan")
    return value
