"""How many scans are flagged as out of distribution: of those that models are meant for, and of others.

    python -m benchmarks.ood_detection [--shared DIR] [--development] [--model FILE ...]

Prints a table: for every kind of scan, how many are flagged as out of distribution. Familiar scans should not
be (false alarms), foreign ones should. Foreign scans are simulated heads under other protocols; real scans of
other sites with their tissues brought to such contrasts; real scans of the other modality; inverted scans;
and real scans of another body part. The heads and participants reported on are in no fitting;
protocols, receive fields and noise are not those of the fitting. `--development` measures on the heads and
participants to choose by.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from nibabel.nifti1 import Nifti1Image
from scipy import ndimage

from benchmarks.formatting import markdown_table
from benchmarks.scans import RealScans, Scan, Volume, shared_folder
from benchmarks.simulated import GRIDS, PROTOCOLS, acquire
from benchmarks.splits import heads
from bids_harmonize.errors import BadData
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.imaging.nifti import open_image
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


def cases(shared: Path, modality: str, development: bool) -> Iterator[Case]:
    """All scans that the model of one modality is given."""
    yield from _real(shared, modality, development)
    yield from _phantoms(modality)
    yield from _simulated(shared / "data" / "labels", modality, development)


# --- Real scans -------------------------------------------------------------------------------------------


def half(participants: Iterable[str], development: bool) -> set[str]:
    """Every other participant: those to choose by, or those to report on."""
    return set(sorted(participants)[0 if development else 1 :: 2])


def _real(shared: Path, modality: str, development: bool) -> Iterator[Case]:
    same, other = (RealScans(shared=shared, modality=name) for name in (modality, OTHER[modality]))
    own, others = (_half_of(real.sites, development) for real in (same, other))
    for scan in own:
        yield Case(kind="familiar", origin="sites", foreign=False, image=scan.image)
    for scan in same.held_out if not development else []:
        yield Case(kind="familiar", origin="left-out person", foreign=False, image=scan.image)
    for scan in (*others, *([] if development else other.held_out)):
        yield Case(kind=OTHER[modality], origin="real", foreign=True, image=scan.image)
    for scan in own:
        yield from _made_of(scan, modality)
    prostates = sorted((shared / "data" / "prostate").glob("sub-*/anat/*_T2w.nii.gz"))
    for path in prostates[0 if development else 1 :: 2]:
        yield Case(kind="prostate", origin="real", foreign=True, image=open_image(path))


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
    return Case(kind=kind, origin=origin, foreign=True, image=Nifti1Image(volume, np.diag([*zooms, 1.0])))


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
            foreign=kind != "familiar",
            image=Nifti1Image(volume, np.diag([*head.zooms, 1.0])),
        )

    for protocol in PROTOCOLS[modality].values():
        yield scan("familiar", protocol.signals(tissues))
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
            yield Case(kind="familiar", origin="phantom dataset", foreign=False, image=open_image(path))


# --- The table --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many scans of one kind and origin there were, and how many of them were flagged."""

    modality: str
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
        assert ood_score is not None
        flags[case.foreign, case.kind, case.origin].append(ood_score.is_ood)
    modality = model.card.modality
    return [
        Count(
            modality=modality,
            kind=kind,
            origin=origin,
            foreign=foreign,
            scans=len(is_ood),
            flagged=sum(is_ood),
        )
        for (foreign, kind, origin), is_ood in sorted(flags.items())
    ]


def markdown(counts: Sequence[Count]) -> str:
    """A line for every kind and origin, and two for all of them."""
    body = [_cells(count.modality, count.kind, count.origin, [count]) for count in counts]
    for modality in dict.fromkeys(count.modality for count in counts):
        for foreign, name in ((False, "all familiar"), (True, "all foreign")):
            chosen = [count for count in counts if (count.modality, count.foreign) == (modality, foreign)]
            body.append(_cells(modality, f"**{name}**", "", chosen))
    return markdown_table(("model", "scans", "from", "number", "flagged", "share"), body) + "\n"


def _cells(modality: str, kind: str, origin: str, counts: Sequence[Count]) -> tuple[str, ...]:
    scans, flagged = sum(count.scans for count in counts), sum(count.flagged for count in counts)
    return modality, kind, origin, str(scans), str(flagged), f"{flagged / max(scans, 1):.0%}"


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
        "--model", nargs="+", default=["T1w", "T2w"], help="models (default: the bundled ones)"
    )
    options = parser.parse_args(arguments)
    counts: list[Count] = []
    for name in options.model:
        model = Model.load(name, "cpu")
        if model.ood_detector is None:
            print(f"model {name} has no detector of scans that are out of distribution", file=sys.stderr)
            return 1
        counts += count(model, cases(options.shared, model.card.modality, options.development))
    print(markdown(counts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
