"""How many scans are flagged as out of distribution: of those that models are meant for, and of others.

    python -m benchmarks.ood_detection [--shared DIR] [--development] [--model FILE ...]

Prints a table: for every kind of scan, how many are flagged as out of distribution. Familiar scans should not
be (false alarms), foreign ones should. Familiar scans are real ones of other sites and participants and
simulated heads, as they are and as hospitals also store them: saturated, in a large or a tight field of view,
in thick slices, of a small head, noisy, skull-stripped. Foreign scans are real ones of other contrasts (FLAIR
and the other modality) and body parts, simulated heads under other protocols, real scans of other sites with
their tissues brought to such contrasts, and inverted scans. The heads and participants reported on are in no
fitting; protocols, receive fields and noise are not those of the fitting. `--development` measures on the
heads and participants to choose by.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage

from benchmarks.formatting import markdown_table
from benchmarks.scans import Mask, RealScans, Scan, Volume, box_around, shared_folder
from benchmarks.simulated import GRIDS, PROTOCOLS, acquire
from benchmarks.splits import heads
from bids_harmonize.errors import BadData
from bids_harmonize.imaging.blocks import block_means
from bids_harmonize.imaging.body_part import shows_brain
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.masks import head_mask
from bids_harmonize.imaging.nifti import as_magnitude, open_image, read_voxels, zooms
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.phantom.dataset import write_phantom
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import TISSUES, Protocol, vary_tissues
from bids_harmonize.simulation.signal_equations import Tissue
from bids_harmonize.training.alterations.tone import blend, piecewise_linear_map
from bids_harmonize.training.reference_group import measure_scan
from bids_harmonize.training.sources import ReferenceExample, reference_examples

OTHER = {"T1w": "T2w", "T2w": "T1w"}
#: Contrasts that neither model is meant for.
FOREIGN: Mapping[str, Mapping[str, Protocol]] = {
    "FLAIR": {
        "3 T": Protocol(field_strength=3.0, sequence="inversion recovery", tr=9000, te=120, ti=2500),
        "3 T, short": Protocol(field_strength=3.0, sequence="inversion recovery", tr=7500, te=95, ti=2300),
        "1.5 T": Protocol(field_strength=1.5, sequence="inversion recovery", tr=10000, te=140, ti=2200),
    },
    "PD": {
        "3 T": Protocol(field_strength=3.0, sequence="spin echo", tr=2800, te=12),
        "1.5 T": Protocol(field_strength=1.5, sequence="spin echo", tr=2200, te=18),
    },
    "PD, long TR": {"3 T": Protocol(field_strength=3.0, sequence="spin echo", tr=6000, te=12)},
}
#: Hounsfield units of tissues that differ from muscle.
CT = {"white matter": 26, "grey matter": 36, "deep grey matter": 36, "csf": 5, "fat": -100, "marrow": 400}
SOFT, BONE = 50, 1100
#: Lowest and highest value that an image holds.
WINDOWS = {"full range": (-1024, 2000), "brain window": (-10, 90)}
#: How familiar scans are stored besides: percentile at which they are clipped, air around a large field of
#: view and slices in mm, sizes of a child's head and of a prostate's voxels, noise over the bright value.
CLIP_PERCENTILE, PADDING_MM, THICK_MM, SMALL_HEAD, LARGER, NOISE = 99.5, 40.0, 5.0, 0.85, 1.24, 0.04
#: Origins that are no real scans.
MADE = ("simulated", "made of sites", "phantom dataset")
#: What is darker than this, in units of white matter, is air or bone.
DARK = 0.12
#: Spread of relaxation times; with more, a tissue's contrast in FLAIR may be one that no participant shows.
RELAXATION_SPREAD = 0.03


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scan, what it is, and where it is from."""

    kind: str
    origin: str
    foreign: bool
    image: Nifti1Image


def cases(shared: Path, card: ModelCard, development: bool) -> Iterator[Case]:
    """All scans that a model is given."""
    if not shows_brain(card.body_parts):
        yield from _prostates(shared, development)
        return
    yield from _real(shared, card.modality, development)
    yield from _phantoms(card.modality)
    yield from _simulated(shared / "data" / "labels", card.modality, development)


# --- The same scan, as it may also be stored --------------------------------------------------------------

Stored = tuple[Volume, tuple[float, float, float]]


def _clipped(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    return np.minimum(volume, np.float32(np.percentile(volume, CLIP_PERCENTILE))), zooms


def _padded(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    return np.pad(volume, [(round(PADDING_MM / zoom),) * 2 for zoom in zooms]), zooms


def _tight(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    inside = head_mask(volume)
    return volume[box_around(inside, zooms, 0.0)], zooms


def _thick(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    steps = max(1, round(THICK_MM / zooms[2]))
    return block_means(volume, (1, 1, min(steps, volume.shape[2]))), (zooms[0], zooms[1], zooms[2] * steps)


def _small(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    x, y, z = (zoom * SMALL_HEAD for zoom in zooms)
    return volume, (x, y, z)


def _noisy(volume: Volume, zooms: tuple[float, float, float]) -> Stored:
    rng = np.random.default_rng(volume.size)
    size = NOISE * intensity_scale(volume)
    first, second = (rng.normal(0, size, volume.shape).astype(np.float32) for _ in range(2))
    return np.hypot(volume + first, second), zooms


STORED = {
    "saturated": _clipped,
    "large field of view": _padded,
    "tight field of view": _tight,
    "thick slices": _thick,
    "small head": _small,
    "noisy": _noisy,
}


def _as_also_stored(case: Case, brain: Mask | None = None) -> Iterator[Case]:
    """A familiar scan, and the same as it may also be stored."""
    yield case
    volume = np.asarray(case.image.dataobj, dtype=np.float32)
    x, y, z = zooms(case.image)
    if brain is not None:
        yield replace(case, kind="skull-stripped", image=_image(volume * brain, (x, y, z)))
    for kind, store in STORED.items():
        yield replace(case, kind=kind, image=_image(*store(volume, (x, y, z))))


def _image(volume: Volume, zooms: Sequence[float]) -> Nifti1Image:
    return Nifti1Image(np.ascontiguousarray(volume, dtype=np.float32), np.diag([*zooms, 1.0]))


# --- Real scans -------------------------------------------------------------------------------------------


def half(participants: Iterable[str], development: bool) -> set[str]:
    """Every other participant: those to choose by, or those to report on."""
    return set(sorted(participants)[0 if development else 1 :: 2])


def _real(shared: Path, modality: str, development: bool) -> Iterator[Case]:
    same, other = (RealScans(shared=shared, modality=name) for name in (modality, OTHER[modality]))
    own, others = (_half_of(real.sites, development) for real in (same, other))
    held_out = [] if development else same.held_out
    for origin, scans in (("sites", own), ("held-out person", held_out)):
        for scan in scans:
            familiar = Case(
                kind="as it is", origin=origin, foreign=False, image=_image(scan.volume, scan.zooms)
            )
            yield from _as_also_stored(familiar, scan.brain)
    for scan in (*others, *([] if development else other.held_out)):
        yield Case(kind=OTHER[modality], origin="real", foreign=True, image=scan.image)
    for path in _every_other(shared, "flair", "FLAIR", development):
        yield Case(kind="FLAIR", origin="real", foreign=True, image=open_image(path))
    for path in _every_other(shared, "pairs", modality, development):
        yield Case(kind="as it is", origin="pairs", foreign=False, image=open_image(path))
    for path in _every_other(shared, "pairs", OTHER[modality], development):
        yield Case(kind=OTHER[modality], origin="real", foreign=True, image=open_image(path))
    for scan in own:
        yield from _made_of(scan, modality)
    for path in _every_other(shared, "prostate", "T2w", development):
        yield Case(kind="prostate", origin="real", foreign=True, image=open_image(path))


def _prostates(shared: Path, development: bool) -> Iterator[Case]:
    """What the model of the prostate is meant for, with larger voxels and noise besides; and heads."""
    for path in _every_other(shared, "prostate", "T2w", development):
        image = open_image(path)
        voxels = as_magnitude(read_voxels(image))[0]
        x, y, z = zooms(image)
        for kind, (volume, sizes) in {
            "as it is": (voxels, (x, y, z)),
            "saturated": _clipped(voxels, (x, y, z)),
            "larger voxels": (voxels, (LARGER * x, LARGER * y, LARGER * z)),
            "noisy": _noisy(voxels, (x, y, z)),
        }.items():
            yield Case(kind=kind, origin="prostates", foreign=False, image=_image(volume, sizes))
    for modality in OTHER:
        for scan in _half_of(RealScans(shared=shared, modality=modality).sites, development):
            yield Case(kind=f"{modality} of a head", origin="real", foreign=True, image=scan.image)


def _every_other(shared: Path, folder: str, suffix: str, development: bool) -> list[Path]:
    """Every other scan of a dataset: those to choose by, or those to report on."""
    found = sorted((shared / "data" / folder).glob(f"sub-*/**/anat/*_{suffix}.nii.gz"))
    return found[0 if development else 1 :: 2]


def _half_of(scans: Sequence[Scan], development: bool) -> list[Scan]:
    participants = half({scan.participant for scan in scans}, development)
    return [scan for scan in scans if scan.participant in participants]


def _made_of(scan: Scan, modality: str) -> Iterator[Case]:
    """The scan inverted, and with the tissues of the brain and around it as other protocols show them."""
    turned = np.maximum(intensity_scale(scan.volume) - scan.volume, 0)
    yield _case("inverted", "made of sites", turned * scan.head, scan.zooms)
    yield _case("inverted", "made of sites", turned, scan.zooms)
    try:
        example = reference_examples(measure_scan(scan.name, scan.volume, scan.zooms, modality), modality)[0]
    except BadData:
        return
    for kind, signals in _contrasts(TISSUES):
        yield _case(kind, "made of sites", shown(example, signals), example.zooms)


def shown(example: ReferenceExample, signals: Mapping[str, float]) -> Volume:
    """A scan with its tissues as the signals say, whatever their order; bone is what is dark in the head."""
    assert example.tissues is not None
    inner, outer = (piecewise_linear_map(example.volume, known, signals) for known in example.tissues)
    volume = blend(inner, outer, example.inside)
    bright = example.volume > DARK
    skull = ndimage.binary_fill_holes(bright) & ~example.region & ~bright
    volume[skull] = signals["bone"]
    return volume.astype(np.float32)


def _case(kind: str, origin: str, volume: Volume, zooms: Sequence[float]) -> Case:
    return Case(kind=kind, origin=origin, foreign=True, image=_image(volume, zooms))


# --- Simulated scans --------------------------------------------------------------------------------------


def _contrasts(tissues: Mapping[str, Tissue]) -> Iterator[tuple[str, dict[str, float]]]:
    for kind, protocols in FOREIGN.items():
        for protocol in protocols.values():
            yield kind, protocol.signals(tissues)
    for low, high in WINDOWS.values():
        units = {name: CT.get(name, SOFT) for name in TISSUES} | {"bone": BONE}
        yield "CT-like", {name: float(np.clip(value, low, high) - low) for name, value in units.items()}


def _simulated(labels: Path, modality: str, development: bool) -> Iterator[Case]:
    for number, name in enumerate(heads(development)):
        for factors in GRIDS[modality]:
            head = Head.read(labels / f"{name}_dseg.nii.gz", factors)
            yield from _scans_of(head, modality, np.random.default_rng([number, *factors]))


def _scans_of(head: Head, modality: str, rng: np.random.Generator) -> Iterator[Case]:
    participant, tissues = head.person(rng), vary_tissues(rng, RELAXATION_SPREAD)
    inside = np.asarray(head.fractions.sum(axis=0) > 0.5)

    def scan(kind: str, signals: Mapping[str, float], *, turn: bool = False) -> Case:
        volume = participant.render(signals)
        if turn:
            volume = np.maximum(intensity_scale(volume) - volume, 0) * inside
        brain_median = float(np.median(volume[head.brain]))
        volume, _ = acquire(volume, brain_median or 1.0, inside, rng)
        return Case(
            kind=kind,
            origin="simulated",
            foreign=kind != "as it is",
            image=_image(volume, head.zooms),
        )

    for protocol in PROTOCOLS[modality].values():
        yield from _as_also_stored(scan("as it is", protocol.signals(tissues)), head.brain)
    for protocol in list(PROTOCOLS[modality].values())[::2]:
        yield scan("inverted", protocol.signals(tissues), turn=True)
    for protocol in list(PROTOCOLS[OTHER[modality]].values())[::2]:
        yield scan(OTHER[modality], protocol.signals(tissues))
    for kind, signals in _contrasts(tissues):
        yield scan(kind, signals)


def _phantoms(modality: str) -> Iterator[Case]:
    """The built-in phantom, on which users try the program."""
    with TemporaryDirectory() as folder:
        for path in sorted(write_phantom(Path(folder) / "raw").rglob(f"*_{modality}.nii*")):
            yield Case(kind="as it is", origin="phantom dataset", foreign=False, image=open_image(path))


# --- The table --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many scans of one kind and origin there were, and how many of them were flagged."""

    model: str
    kind: str
    origin: str
    foreign: bool
    scans: int
    flagged: int


def count(model: Model, cases: Iterable[Case]) -> list[Count]:
    """Score scans by a model that has a detector, and count those it flags; familiar ones come first."""
    flags: defaultdict[tuple[bool, str, str], list[bool]] = defaultdict(list)
    for case in cases:
        ood_score = model.score_ood(case.image)
        if ood_score is None:
            raise BadData(f"the model {model.name} cannot tell what it is not meant for")
        flags[case.foreign, case.kind, case.origin].append(ood_score.is_ood)
    name = model.name
    return [
        Count(
            model=name,
            kind=kind,
            origin=origin,
            foreign=foreign,
            scans=len(is_ood),
            flagged=sum(is_ood),
        )
        for (foreign, kind, origin), is_ood in sorted(flags.items())
    ]


def markdown(counts: Sequence[Count]) -> str:
    """A line for every kind and origin, and four for all of them."""
    body = [_cells(count.model, count.kind, count.origin, [count]) for count in counts]
    for model in dict.fromkeys(count.model for count in counts):
        for foreign, name in ((False, "all familiar"), (True, "all foreign")):
            chosen = [count for count in counts if (count.model, count.foreign) == (model, foreign)]
            real = [count for count in chosen if count.origin not in MADE]
            body.append(_cells(model, f"**{name}**", "", chosen))
            body.append(_cells(model, f"**{name}**", "real", real))
    return markdown_table(("model", "scans", "from", "number", "flagged", "share"), body) + "\n"


def _cells(model: str, kind: str, origin: str, counts: Sequence[Count]) -> tuple[str, ...]:
    scans, flagged = sum(count.scans for count in counts), sum(count.flagged for count in counts)
    return model, kind, origin, str(scans), str(flagged), f"{flagged / max(scans, 1):.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ood_detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shared", type=Path, default=shared_folder(), help="folder of scans and label maps")
    parser.add_argument("--development", action="store_true", help="measure on the data to choose by")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["T1w", "T2w", "prostate-T2w"],
        help="models (default: the bundled ones)",
    )
    options = parser.parse_args(arguments)
    counts: list[Count] = []
    for name in options.model:
        model = Model.load(name, "cpu")
        counts += count(model, cases(options.shared, model.card, options.development))
    print(markdown(counts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
