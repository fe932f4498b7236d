"""Ours and what users would use instead: fitted on the reference group, applied to scans.

Methods that ask for a mask get the brain mask of the scan, as their users would give them; that of a
simulated scan is the true one, an advantage over a method that needs none. Where a package expects T1w, its
setting for the darkest tissue stands for the white matter of T2w.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import SimpleITK
from intensity_normalization import (
    FCMNormalizer,
    KDENormalizer,
    LSQNormalizer,
    Modality,
    NyulNormalizer,
    TissueType,
    WhiteStripeNormalizer,
    ZScoreNormalizer,
    create_image,
)
from numpy.typing import NDArray
from skimage.exposure import match_histograms

from benchmarks.one_scan import N4_SHRINK, OURS
from benchmarks.scans import Mask, Scan, Volume
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.model.harmonizer import Model

#: How many of the lowest DCT coefficients along each axis the spectrum-swapping method swaps.
SWAPPED = 3
# Percentiles and classes of more voxels do not change, and fuzzy classes of more take minutes.
MASK_VOXELS = 20_000
# Voxels this thick are not shrunk further along their axis.
N4_THICK_MM = 3.0

Apply = Callable[[Scan], Volume]
Fit = Callable[[Sequence[Scan]], Apply]


class _LSQ(LSQNormalizer):
    """The package's method with its least-squares factor as a sum: its own fails from numpy 2.4 on."""

    def _calculate_scaling_factor(self, tissue_means: NDArray[np.floating]) -> float:
        standard: Any = self.standard_tissue_means
        return float(np.sum(tissue_means**2) / np.sum(tissue_means * standard))


@dataclass(kw_only=True)
class Method:
    """A fitted method; each scan is harmonized once and its volume kept in a folder.

    Attributes
    ----------
    function
        From a scan to its harmonized volume.
    zero_kept
        Whether the output of zero is zero, or nearly so, so that ratios of its values mean something.
    before
        A method whose output this one takes as its input.
    seconds, failures
        By scan name: the processor time it took, `before` included, and why it failed. A failure counts as
        the unchanged scan.
    fit_seconds
        Fitting on the reference group, or loading the model.
    """

    name: str
    function: Apply
    folder: Path
    zero_kept: bool = True
    before: Method | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    fit_seconds: float = 0.0

    def apply(self, scan: Scan) -> Volume:
        """The harmonized volume, float32, of the scan's shape."""
        path = self.folder / f"{self.name.replace(' ', '_')}_{scan.name}.npy"
        if not path.exists():
            np.save(path, self._harmonize(scan))
        return np.asarray(np.load(path))

    def _harmonize(self, scan: Scan) -> Volume:
        source = scan if self.before is None else replace(scan, volume=self.before.apply(scan))
        start = time.process_time()
        try:
            volume = np.asarray(self.function(source), dtype=np.float32)
            if not np.isfinite(volume).all():
                raise ValueError("the output is not finite")
        except Exception as error:
            # Whatever a package raises on an odd scan is a result of the benchmark, not its end.
            self.failures[scan.name] = str(error) or type(error).__name__
            volume = scan.volume
        spent = time.process_time() - start
        self.seconds[scan.name] = spent + (self.before.seconds[scan.name] if self.before else 0.0)
        return volume


def make_methods(
    names: Sequence[str], modality: str, reference: Sequence[Scan], model: str | Path, folder: Path
) -> list[Method]:
    """The methods of those names (see `NAMES`), fitted on the reference group."""
    n4 = Method(name="N4", function=n4_corrected, folder=folder)
    return [_make(name, n4, modality, reference, model) for name in names]


def _make(name: str, n4: Method, modality: str, reference: Sequence[Scan], model: str | Path) -> Method:
    base = name.removeprefix("N4 + ")
    before = None if base == name else n4
    # What runs before a method is fitted does not count as its own time.
    group = [replace(scan, volume=n4.apply(scan)) for scan in reference] if before else reference
    start = time.process_time()
    function = ours(model) if name == OURS else _FITS[base](group, modality)
    return Method(
        name=name,
        function=function,
        folder=n4.folder,
        zero_kept=base not in ("z-score", "WhiteStripe"),
        before=before,
        fit_seconds=time.process_time() - start,
    )


def ours(model: str | Path) -> Apply:
    """The model, given nothing but the scan."""
    loaded = Model.load(model, device="cpu")
    return lambda scan: np.asarray(loaded.harmonize(scan.image).image.dataobj, dtype=np.float32)


def _unchanged(reference: Sequence[Scan], modality: str) -> Apply:
    return lambda scan: scan.volume


def _percentile_scaling(reference: Sequence[Scan], modality: str) -> Apply:
    """Divide by the 99th percentile of the foreground."""
    return lambda scan: scan.volume / np.float32(intensity_scale(scan.volume))


def _individual(make: Callable[[str], Any]) -> Callable[[Sequence[Scan], str], Apply]:
    """A method of intensity-normalization that needs no group."""

    def fit(reference: Sequence[Scan], modality: str) -> Apply:
        def apply(scan: Scan) -> Volume:
            # Their KDE means its bandwidth in the unit of the data, but hands it over as one in standard
            # deviations: with a standard deviation of 1 both are the same. No other method depends on it.
            volume = scan.volume / scan.volume[scan.brain].std()
            mask = create_image(_thinned(scan.brain))
            return make(modality).fit_transform(create_image(volume), mask).get_data()

        return apply

    return fit


def _population(make: Callable[[], Any]) -> Callable[[Sequence[Scan], str], Apply]:
    """A method of intensity-normalization that is fitted on a group."""

    def fit(reference: Sequence[Scan], modality: str) -> Apply:
        images = [create_image(scan.volume) for scan in reference]
        fitted = make().fit_population(images, [create_image(_thinned(scan.brain)) for scan in reference])
        return lambda scan: fitted.transform(
            create_image(scan.volume), create_image(_thinned(scan.brain))
        ).get_data()

    return fit


def _thinned(mask: Mask) -> Mask:
    """Voxels of the mask at regular intervals, at least `MASK_VOXELS` of them."""
    where = np.flatnonzero(mask)
    thinned = np.zeros_like(mask)
    thinned.flat[where[:: max(1, len(where) // MASK_VOXELS)]] = True
    return thinned


def _kind(modality: str) -> Modality:
    return Modality.T1 if modality == "T1w" else Modality.T2


def _white(modality: str) -> TissueType:
    return TissueType.WM if modality == "T1w" else TissueType.CSF


def _histogram_matching(reference: Sequence[Scan], modality: str) -> Apply:
    """Match the brain's histogram to the pooled one of the group; outside the brain the curve goes on."""
    pooled = np.concatenate([_scaled_brain(scan)[::7] for scan in reference])

    def apply(scan: Scan) -> Volume:
        values = np.sort(scan.volume[scan.brain])
        matched = match_histograms(values, pooled)
        return _follow(scan.volume, values, matched)

    return apply


def _scaled_brain(scan: Scan) -> Volume:
    values = scan.volume[scan.brain]
    return values / np.median(values)


def _follow(volume: Volume, values: Volume, mapped: Volume) -> Volume:
    """A curve given by sorted values and what they become; straight on beyond the 1 to 99 % range."""
    low, high = np.percentile(values, [1, 99])
    at_low, at_high = np.percentile(mapped, [1, 99])
    slope = (at_high - at_low) / (high - low)
    result = np.interp(volume, values, mapped)
    dark, bright = volume < values[0], volume > values[-1]
    result[dark] = mapped[0] * volume[dark] / max(values[0], np.finfo(np.float32).tiny)
    result[bright] = mapped[-1] + slope * (volume[bright] - values[-1])
    return np.asarray(result, dtype=np.float32)


def _spectrum_swapping(reference: Sequence[Scan], modality: str) -> Apply:
    """The lowest DCT coefficients from a scan of the group, the one nearest to its median brightness.

    After Guan et al. 2022 (doi:10.1007/978-3-031-21014-3_21), without their registration.
    """
    donor = _central(reference)
    wanted = _low_coefficients(donor.volume / np.float32(intensity_scale(donor.volume)))

    def apply(scan: Scan) -> Volume:
        scaled = scan.volume / np.float32(intensity_scale(scan.volume))
        change = np.zeros_like(scaled)
        corner = (slice(SWAPPED),) * 3
        change[corner] = (wanted - _low_coefficients(scaled)) * np.sqrt(scaled.size)
        swapped = scaled + scipy.fft.idctn(change, norm="ortho")
        return np.where(scan.head, swapped, scaled)

    return apply


def _central(reference: Sequence[Scan]) -> Scan:
    means = [float(scan.volume.mean() / intensity_scale(scan.volume)) for scan in reference]
    return reference[int(np.argsort(means)[len(means) // 2])]


def _low_coefficients(volume: Volume) -> Volume:
    """Per voxel, so that volumes of different size compare."""
    corner = (slice(SWAPPED),) * 3
    return np.asarray(scipy.fft.dctn(volume, norm="ortho")[corner] / np.sqrt(volume.size))


def n4_corrected(scan: Scan) -> Volume:
    """N4 bias-field correction (Tustison 2010, doi:10.1109/TMI.2010.2046908) inside the head.

    The field is fitted on a shrunken image and applied at full resolution.
    """
    # On a busy machine threads that wait for each other make minutes of a second.
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = _to_sitk(scan.volume, scan)
    mask = _to_sitk(scan.head, scan)
    factors = [1 if zoom > N4_THICK_MM else N4_SHRINK for zoom in scan.zooms]
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
    log_field = SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    return np.asarray(scan.volume / np.exp(log_field.transpose(2, 1, 0)), dtype=np.float32)


def _to_sitk(array: Volume | Mask, scan: Scan) -> Any:
    # ITK has no Boolean images.
    numbers = array.view(np.uint8) if array.dtype == bool else array
    image = SimpleITK.GetImageFromArray(numbers.transpose(2, 1, 0))
    image.SetSpacing(scan.zooms)
    return image


_FITS: Mapping[str, Callable[[Sequence[Scan], str], Apply]] = {
    "none": _unchanged,
    "percentile": _percentile_scaling,
    "z-score": _individual(lambda modality: ZScoreNormalizer()),
    "Nyúl": _population(NyulNormalizer),
    "WhiteStripe": _individual(lambda modality: WhiteStripeNormalizer(modality=_kind(modality))),
    "FCM": _individual(lambda modality: FCMNormalizer(tissue_type=_white(modality))),
    "KDE": _individual(lambda modality: KDENormalizer(modality=_kind(modality))),
    "LSQ": _population(_LSQ),
    "histogram matching": _histogram_matching,
    "spectrum swapping": _spectrum_swapping,
}

#: All methods, in the order of the table.
NAMES = (OURS, *_FITS, "N4 + z-score", "N4 + Nyúl")
