"""Tier B: one participant scanned twice; the second scan is rigidly registered to the first.

The registration is found once, on the raw scans, and every method's output of the second scan is resampled by
it, so that all methods bear the same error of it.

Repeats are also made: the left-out person's scan, turned by 10° and shifted by half a voxel, with new noise.
What brings these together is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import error_db
from benchmarks.result_rows import Better, Row, summarize_each
from benchmarks.scans import Mask, Scan, Volume, read_scan
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.measures.agreement import agreement_db

TIER = "B"
#: Degrees about each axis, and voxels along each, by which a repeat is made, how many there are of a scan,
#: and the bright value over the noise that is added.
TURN, SHIFT, MADE, SNR = 10.0, 0.5, 3, 40.0
QUANTILES = np.linspace(0.02, 0.98, 49)

BETTER: dict[str, Better] = {
    "agreement inside the head, dB": "higher",
    "agreement inside the brain, dB": "higher",
    "err/SD inside the head, dB": "higher",
    "correlation inside the head": "higher",
    "distance of distributions inside the head": "lower",
}


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """Two scans of a participant, and what brings the second to the first."""

    first: Scan
    second: Scan
    transform: Any
    overlap: Mask

    @classmethod
    def of(cls, first: Scan, second: Scan) -> Repeat:
        """Register the raw scans; `overlap` is where both have voxels."""
        transform = rigid_transform(first, second)
        covered = resampled(np.ones_like(second.volume), second, first, transform) > 0.99
        return cls(first=first, second=second, transform=transform, overlap=covered)


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods: of real pairs together and each by itself, and of made ones."""
    repeats = [] if data.pairs is None else read_repeats(data.pairs, data.modality)
    made = [made_repeat(scan, draw) for scan in data.real.held_out for draw in range(MADE)]
    kinds = {"": repeats, "made repeats: ": made}
    if len(repeats) > 1:
        kinds |= {f"{repeat.first.participant}: ": [repeat] for repeat in repeats}
    return [
        row
        for kind, chosen in kinds.items()
        if chosen
        for method in methods
        for row in _method_rows(method, chosen, data.modality, kind)
    ]


def made_repeat(scan: Scan, draw: int) -> Repeat:
    """The same person turned and shifted, as another acquisition of the same protocol shows them."""
    rng = np.random.default_rng(draw)
    transform = SimpleITK.Euler3DTransform()
    shape = np.array(scan.volume.shape)
    to_lps = np.array([-1.0, -1.0, 1.0])
    transform.SetCenter((to_lps * (scan.affine @ [*(shape / 2), 1])[:3]).tolist())
    axis = int(rng.integers(3))
    turn = [math.radians(TURN) * float(rng.choice([-1, 1])) * (k == axis) for k in range(3)]
    transform.SetRotation(*turn)
    transform.SetTranslation([SHIFT * zoom for zoom in scan.zooms])
    turned = resampled(scan.volume, scan, scan, transform)
    noise = rng.standard_normal((2, *scan.volume.shape)) * intensity_scale(scan.volume) / SNR
    volume = np.hypot(turned + noise[0], noise[1]).astype(np.float32)
    head, brain = (
        resampled(mask.astype(np.float32), scan, scan, transform) > 0.5 for mask in (scan.head, scan.brain)
    )
    second = replace(scan, name=f"{scan.name}_turned-{draw}", volume=volume, head=head, brain=brain)
    inverse = transform.GetInverse()
    covered = resampled(np.ones_like(volume), second, scan, inverse) > 0.99
    return Repeat(first=scan, second=second, transform=inverse, overlap=covered)


def read_repeats(folder: Path, modality: str) -> list[Repeat]:
    """All pairs of scans of one modality and participant in a BIDS dataset."""
    repeats = []
    for participant in sorted(folder.glob("sub-*")):
        paths = sorted(participant.glob(f"**/anat/*_{modality}.nii*"))
        scans = [read_scan(path, path.parent.parent.name) for path in paths]
        repeats += [Repeat.of(*pair) for pair in combinations(scans, 2)]
    return repeats


def rigid_transform(fixed: Scan, moving: Scan) -> Any:
    """The rigid transform of most mutual information (Mattes 2003), from millimetres to millimetres."""
    # Several threads would add up in another order every time.
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    images = [to_sitk(scan.volume, scan) for scan in (fixed, moving)]
    start = SimpleITK.CenteredTransformInitializer(
        *images,
        SimpleITK.Euler3DTransform(),
        SimpleITK.CenteredTransformInitializerFilter.MOMENTS,
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start)
    method.SetInterpolator(SimpleITK.sitkLinear)
    return method.Execute(*images)


def resampled(volume: Volume, scan: Scan, like: Scan, transform: Any) -> Volume:
    """A volume on the grid of another scan, linear between voxels, 0 beyond."""
    image = SimpleITK.Resample(
        to_sitk(volume, scan), to_sitk(like.volume, like), transform, SimpleITK.sitkLinear, 0.0
    )
    return np.asarray(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), dtype=np.float32)


def to_sitk(volume: Volume, scan: Scan) -> Any:
    """A volume at its place; ITK points left and posterior where `Scan` points right and anterior."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0), dtype=np.float32))
    image.SetSpacing(scan.zooms)
    image.SetOrigin(to_lps @ scan.affine[:3, 3])
    image.SetDirection((to_lps @ scan.affine[:3, :3] / np.array(scan.zooms)).ravel())
    return image


def _method_rows(method: Method, repeats: Sequence[Repeat], modality: str, kind: str) -> list[Row]:
    measured = [measure(method, repeat) for repeat in repeats]
    scans = {scan.name for repeat in repeats for scan in (repeat.first, repeat.second)}
    return summarize_each(TIER, modality, method.name, measured, BETTER, scans=len(scans), kind=kind)


def measure(method: Method, repeat: Repeat) -> dict[str, float]:
    """The metrics of one pair."""
    return compare(repeat, method.apply(repeat.first), method.apply(repeat.second))


def compare(repeat: Repeat, a: Volume, second_output: Volume) -> dict[str, float]:
    """The metrics of what was made of the two scans of a pair."""
    first, second = repeat.first, repeat.second
    b = resampled(second_output, second, first, repeat.transform)
    head, brain = first.head & repeat.overlap, first.brain & repeat.overlap
    return {
        "agreement inside the head, dB": agreement_db(a[head], b[head]),
        "agreement inside the brain, dB": agreement_db(a[brain], b[brain]),
        "err/SD inside the head, dB": error_db(a[head], b[head]),
        "correlation inside the head": float(np.corrcoef(a[head], b[head])[0, 1]),
        "distance of distributions inside the head": distribution_distance(a[head], b[head]),
    }


def distribution_distance(a: Volume, b: Volume) -> float:
    """Mean difference of two quantile functions (2 to 98 %), over the span of both together."""
    curves = [np.quantile(values.astype(np.float64), QUANTILES) for values in (a, b)]
    span = max(curve[-1] for curve in curves) - min(curve[0] for curve in curves)
    return float(np.abs(curves[0] - curves[1]).mean() / span)
