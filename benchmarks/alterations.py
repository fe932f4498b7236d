"""A figure of the alterations in the frequency domain: variations of a head, and what became of its k-space.

    python -m benchmarks.alterations OUT.png [--seed N]

The head is the built-in phantom. Alterations are drawn as in training; of the draws of each family the figure
shows the one that changes the head more than three in four do. Images are in units of the brain's median, so
that no common factor counts as a change. The file holds all numbers, as JSON under the key Description.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnchoredText
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from benchmarks.formatting import signed_percent
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.phantom.anatomy import head_labels
from bids_harmonize.phantom.scanner import render
from bids_harmonize.phantom.sites import plan_runs
from bids_harmonize.phantom.space import Grid
from bids_harmonize.training.alterations.kspace import (
    Alteration,
    Apodization,
    CentrePerturbation,
    KSpace,
    LowBand,
    MagnitudePower,
    Noise,
    PhaseError,
    RadialGain,
    SmoothField,
    Spikes,
)
from bids_harmonize.training.alterations.tone import ToneCurve
from bids_harmonize.training.pairs import FAMILIES

Image = NDArray[np.float32]

# An axial slice through the lateral ventricles of every phantom, without the neck, as in most brain scans.
GRID = Grid(zooms=(1.25, 1.25, 1.25), low=(-84.0, -104.0, -70.0), high=(84.0, 112.0, 88.0))
SLICE_MM = 8.0
DRAWS = 20
COLUMNS, WIDTH_INCHES = 7, 7.2
ROWS = ("image", "change of image", "k-space")
# Ends of the colour scales: in units of the brain's median, and in decibels.
WHITE, IMAGE_LIMIT, DECIBEL_LIMIT, DYNAMIC_RANGE = 1.8, 0.4, 6.0, 80.0
# How far the panels of k-space reach, cycles/mm: all of it, or where alterations of the centre act.
NYQUIST, CENTRE = 0.5 / GRID.zooms[0], 0.1
GREY, CHANGE = "gray", "RdBu_r"
SMALL, MEDIUM = 5.0, 6.5

CENTRAL = (RadialGain, CentrePerturbation, MagnitudePower)
FAMILIES_BY_NAME: Mapping[str, type[Any]] = {family.__name__: family for family in FAMILIES}


@dataclass(frozen=True, kw_only=True)
class Variation:
    """An altered head, its name on the figure, and the numbers from which it can be made again.

    `central` alterations are looked at near the centre of k-space.
    """

    name: str
    volume: Image
    details: str = ""
    central: bool = False
    numbers: tuple[dict[str, Any], ...] = ()


# --- The head and its variations --------------------------------------------------------------------------


def scan(seed: int, participant: int) -> Image:
    """A T1w scan of a phantom participant, scaled so that the 99th percentile of its foreground is 1."""
    run = next(run for run in plan_runs(seed=seed) if run.suffix == "T1w")
    head = head_labels(seed, participant, spacing=GRID.zooms[0])
    volume = render(head, run.protocol, GRID, run.receiver, seed=(seed, participant))
    return volume / np.float32(intensity_scale(volume))


def variations(seed: int) -> list[Variation]:
    """The original, one variation of each kind, and mixtures."""
    head, other = scan(seed, 0), scan(seed, 1)
    return [
        Variation(name="Original", volume=head),
        _draw_of(head, "Radial gain", [RadialGain], seed),
        _draw_of(head, "Centre perturbed", [CentrePerturbation], seed),
        _draw_of(head, "Magnitude power", [MagnitudePower], seed),
        _tone_mapped_band(head, seed),
        _band_of_another_head(head, other, seed),
        _draw_of(head, "Receive field", [SmoothField], seed),
        *_resolutions(head, seed),
        _draw_of(head, "Spikes", [Spikes], seed),
        _draw_of(head, "Phase error", [PhaseError], seed),
        _draw_of(head, "Noise", [Noise], seed),
        _draw_of(head, "Mixture A", [RadialGain, CentrePerturbation, SmoothField, Noise], seed),
        _draw_of(head, "Mixture B", [MagnitudePower, Apodization, PhaseError, SmoothField], seed),
    ]


def _draw_of(head: Image, name: str, families: Sequence[type[Alteration]], seed: int) -> Variation:
    rng = np.random.default_rng((seed, *name.encode()))
    draws = [[family.sample(rng) for family in families] for _ in range(DRAWS)]
    coarse = head[::3, ::3, ::3]
    altered = [apply_all(coarse, draw, 3) for draw in draws]
    return _variation(head, name, draws[_index_of_clear_change(coarse, altered)])


def _index_of_clear_change(head: Image, altered: Sequence[Image]) -> int:
    """The index of the change that is larger than three in four; an average one is hard to see in print."""
    units = in_brain_units(head)
    changes = [float(np.square(in_brain_units(volume) - units).mean()) for volume in altered]
    return int(np.argsort(changes)[3 * len(changes) // 4])


def _variation(head: Image, name: str, alterations: Sequence[Alteration]) -> Variation:
    mixture = len(alterations) > 1
    return Variation(
        name=name,
        volume=apply_all(head, alterations),
        details=", ".join(map(_in_short, alterations)) if mixture else _details(alterations[0]),
        central=all(isinstance(alteration, CENTRAL) for alteration in alterations),
        numbers=tuple(map(to_record, alterations)),
    )


def apply_all(head: Image, alterations: Sequence[Alteration], step: int = 1) -> Image:
    """Apply alterations in turn to a head of which every `step`-th voxel is kept along each axis."""
    k_space = KSpace.of(head, [zoom * step for zoom in GRID.zooms])
    for alteration in alterations:
        k_space = alteration.apply(k_space)
    return k_space.volume()


def _tone_mapped_band(head: Image, seed: int) -> Variation:
    rng = np.random.default_rng((seed, 1))
    curves = [ToneCurve.sample(rng) for _ in range(DRAWS)]
    coarse = head[::3, ::3, ::3]
    curve = curves[_index_of_clear_change(coarse, [curve.apply(coarse) for curve in curves])]
    band = LowBand(weight=1.0, cutoff=0.3)
    return replace(
        _blended(head, curve.apply(head), "Band: tone curve", band),
        numbers=(to_record(curve), to_record(band)),
    )


def _band_of_another_head(head: Image, other: Image, seed: int) -> Variation:
    band = LowBand.sample(np.random.default_rng((seed, 2)), largest_cutoff=0.03)
    return _blended(head, other, "Band: other head", band)


def _blended(head: Image, other: Image, name: str, band: LowBand) -> Variation:
    blend = band.apply(KSpace.of(head, GRID.zooms), KSpace.of(other, GRID.zooms))
    numbers, central = (to_record(band),), band.cutoff < CENTRE
    return Variation(
        name=name, volume=blend.volume(), details=_details(band), central=central, numbers=numbers
    )


def _resolutions(head: Image, seed: int) -> list[Variation]:
    """The two effects of `Apodization` one by one: blur without ringing, and ringing without blur."""
    rng = np.random.default_rng((seed, 3))
    draws = [Apodization.sample(rng) for _ in range(DRAWS)]
    widest = max(draws, key=lambda draw: draw.full_width_mm)
    sharpest = min(draws, key=lambda draw: draw.kept_share)
    return [
        _variation(head, "Apodization", [replace(widest, kept_share=1.0)]),
        _variation(head, "Sharp cut (Gibbs)", [replace(sharpest, full_width_mm=0.0)]),
    ]


def _details(alteration: Any) -> str:
    """The numbers that matter, in a few words."""
    match alteration:
        case RadialGain(log_gains, cutoff):
            return f"{signed_percent(min(log_gains))}…{signed_percent(max(log_gains))}, < {cutoff:.2f}/mm"
        case CentrePerturbation(_, strength, cutoff):
            return f"{strength:.0%} complex, < {cutoff:.2f}/mm"
        case MagnitudePower(power, cutoff):
            return f"power {power:.2f}, < {cutoff:.2f}/mm"
        case LowBand(weight, cutoff):
            return f"{weight:.0%} below {cutoff:.2f}/mm"
        case Apodization(width, kept):
            return f"{width:.1f} mm full width" if kept == 1 else f"inner {kept:.0%} of radius"
        case Spikes(spikes):
            return f"{len(spikes)} spikes, ≤ {max(spike[3] for spike in spikes):.0%} of mean"
        case PhaseError(_, shift, amplitude, _):
            return f"{amplitude:.2f} rad, ghost at {shift:.0%}"
        case SmoothField(terms):
            return f"{len(terms)} cosines"
        case Noise(_, sigma):
            return f"σ = {sigma:.1%} of bright"
    raise ValueError(f"no description for alterations of the family {type(alteration).__name__}")


def _in_short(alteration: Alteration) -> str:
    short = {
        RadialGain: "gain",
        CentrePerturbation: "centre",
        MagnitudePower: "power",
        Apodization: "blur",
        PhaseError: "ghost",
        SmoothField: "field",
        Noise: "noise",
    }
    return short[type(alteration)]


# --- Alterations as JSON ----------------------------------------------------------------------------------


def to_record(alteration: Any) -> dict[str, Any]:
    """An alteration as a mapping that JSON can hold: the name of its family and its numbers.

    Raises
    ------
    ValueError
        If it belongs to no family of alterations.
    """
    name = type(alteration).__name__
    if type(alteration) is not FAMILIES_BY_NAME.get(name):
        raise ValueError(f"{name} is not a family of alterations")
    return {"Family": name, **vars(alteration)}


def from_record(record: Mapping[str, Any]) -> Any:
    """The alteration that `to_record` has written down, read from JSON or not.

    Raises
    ------
    ValueError
        If the family is unknown.
    """
    values = {name: _lists_to_tuples(value) for name, value in record.items()}
    family = values.pop("Family", None)
    if family not in FAMILIES_BY_NAME:
        raise ValueError(f"{family} is not a family of alterations ({', '.join(FAMILIES_BY_NAME)})")
    return FAMILIES_BY_NAME[family](**values)


def _lists_to_tuples(value: Any) -> Any:
    """JSON makes lists of tuples."""
    return tuple(map(_lists_to_tuples, value)) if isinstance(value, list | tuple) else value


# --- The figure -------------------------------------------------------------------------------------------


def draw(shown: Sequence[Variation]) -> Figure:
    """Blocks of three rows: image, change of the image, and k-space (of the original) or the change of it."""
    blocks = -(-len(shown) // COLUMNS)
    width = WIDTH_INCHES / COLUMNS
    heights = [GRID.shape[1] / GRID.shape[0]] * 2 + [1]
    figure = Figure(figsize=(WIDTH_INCHES, blocks * (0.95 * width * sum(heights) + 0.38)))
    outer = figure.add_gridspec(blocks, 1, left=0.028, right=0.998, bottom=0.005, top=0.96, hspace=0.12)
    original = shown[0].volume
    for number, variation in enumerate(shown):
        block, column = divmod(number, COLUMNS)
        cells = outer[block].subgridspec(3, COLUMNS, wspace=0.04, hspace=0.03, height_ratios=heights)
        panels = [figure.add_subplot(cells[row, column]) for row in range(3)]
        _draw_labels(panels, variation, ROWS if column == 0 else ())
        panels[0].imshow(slice_of(in_brain_units(variation.volume)), cmap=GREY, vmin=0, vmax=WHITE)
        if number == 0:
            _draw_spectrum_and_scales(panels, original)
        else:
            _draw_changes(panels, variation, original)
    return figure


def _draw_labels(panels: Sequence[Axes], variation: Variation, rows: Sequence[str]) -> None:
    top = panels[0]
    top.set_title(variation.name, fontsize=MEDIUM, fontweight="bold", pad=9)
    top.text(0.5, 1.02, variation.details, fontsize=SMALL, ha="center", transform=top.transAxes)
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, row in zip(panels, rows, strict=False):
        axes.set_ylabel(row, fontsize=MEDIUM, labelpad=2)


def _draw_changes(panels: Sequence[Axes], variation: Variation, original: Image) -> None:
    change = slice_of(in_brain_units(variation.volume) - in_brain_units(original))
    panels[1].imshow(change, cmap=CHANGE, vmin=-IMAGE_LIMIT, vmax=IMAGE_LIMIT)
    ratio = decibels(slice_of(variation.volume)) - decibels(slice_of(original))
    limit = CENTRE if variation.central else NYQUIST
    _draw_k_space(panels[2], ratio, limit, cmap=CHANGE, vmin=-DECIBEL_LIMIT, vmax=DECIBEL_LIMIT)


def _draw_spectrum_and_scales(panels: Sequence[Axes], original: Image) -> None:
    """The original's k-space, and the scales of all panels where its change would be."""
    spectrum = decibels(slice_of(original))
    _draw_k_space(panels[2], spectrum - spectrum.max(), NYQUIST, cmap=GREY, vmin=-DYNAMIC_RANGE, vmax=0)
    corner, side = (-CENTRE, -CENTRE), 2 * CENTRE
    panels[2].add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=0.5))
    panels[1].set(xlim=(0, 1), ylim=(0, 1))
    _draw_scale(panels[1], 0.78, CHANGE, "change of image", (f"−{IMAGE_LIMIT:g}", f"{IMAGE_LIMIT:g}"))
    _draw_scale(
        panels[1], 0.46, CHANGE, "change of k-space", (f"−{DECIBEL_LIMIT:g}", f"{DECIBEL_LIMIT:g} dB")
    )
    _draw_scale(panels[1], 0.14, GREY, "k-space of original", (f"−{DYNAMIC_RANGE:g}", "0 dB"))


def _draw_k_space(axes: Axes, values: Image, limit: float, **style: Any) -> None:
    """Frequencies up to `limit`, cycles/mm."""
    # Coefficients lie in the middle of their pixels: the centre is half a pixel off the middle of the image.
    rows, columns = ((np.array([-0.5, n - 0.5]) - n // 2) / n / GRID.zooms[0] for n in values.shape)
    axes.imshow(values, extent=(*columns, *rows[::-1]), interpolation="nearest", **style)
    axes.set(xlim=(-limit, limit), ylim=(limit, -limit))
    reach = AnchoredText(f"±{limit:g}/mm", "lower right", pad=0.15, borderpad=0.2, prop={"size": SMALL})
    reach.patch.set(linewidth=0, alpha=0.85)
    axes.add_artist(reach)


def _draw_scale(axes: Axes, height: float, colours: str, name: str, ends: tuple[str, str]) -> None:
    bar = axes.inset_axes((0.08, height, 0.84, 0.05))
    bar.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto")
    bar.set(xticks=[0, 255], yticks=[])
    bar.set_xticklabels(ends, fontsize=SMALL)
    bar.tick_params(length=0, pad=2)
    bar.set_title(name, fontsize=SMALL, pad=2)
    first, last = bar.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def slice_of(volume: Image) -> Image:
    """The axial slice at `SLICE_MM`, the anterior side on top."""
    index = round((SLICE_MM - GRID.low[2]) / GRID.zooms[2])
    return volume[::-1, ::-1, index].T


def in_brain_units(volume: Image) -> Image:
    """Divide by the median of the middle of the head."""
    middle = tuple(slice(n // 3, -(n // 3)) for n in volume.shape)
    return volume / np.median(volume[middle])


def decibels(image: Image) -> Image:
    """Logarithmic magnitude of the slice's spectrum, its centre in the middle."""
    spectrum = np.fft.fftshift(np.fft.fft2(image, norm="ortho"))
    return 20 * np.log10(np.maximum(np.abs(spectrum), 1e-3)).astype(np.float32)


# --- The command line -------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("png", type=Path, metavar="OUT.png", help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the heads and alterations (default: 0)")
    options = parser.parse_args(arguments)
    shown = variations(options.seed)
    description = json.dumps({variation.name: variation.numbers for variation in shown})
    draw(shown).savefig(options.png, format="png", dpi=300, metadata={"Description": description})


if __name__ == "__main__":
    main()
