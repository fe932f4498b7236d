"""Does the program know which scans its models are not meant for?

    python -m benchmarks.abstain [--shared DIR] [--development] [--model FILE ...]

Prints a table: of every kind of scan, how many are flagged as out of distribution. Familiar scans should not
be (false alarms), foreign ones should. Foreign scans are simulated heads under other protocols; real scans of
other sites with their tissues brought to such contrasts; real scans of the other modality; inverted scans;
and real scans of another body part. The heads and people reported on are in no fitting; protocols, receive
fields and noise are not those of the fitting. `--development` measures on the heads and people to choose by.
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

from benchmarks.scans import RealScans, Scan, Volume, shared_folder
from benchmarks.simulated import GRIDS, PROTOCOLS, acquire
from benchmarks.splits import heads
from bids_harmonize.acquisition import TISSUES, Protocol, vary_tissues
from bids_harmonize.contrast import Tissue
from bids_harmonize.errors import BadData
from bids_harmonize.heads import Head
from bids_harmonize.image import intensity_scale, open_image
from bids_harmonize.model import Model
from bids_harmonize.pairs import Example, examples
from bids_harmonize.phantom import write_phantom
from bids_harmonize.reference import measure_scan

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
#: Hounsfield units of what differs; all other tissues are as muscle.
CT = {"white matter": 26, "grey matter": 36, "deep grey matter": 36, "csf": 5, "fat": -100, "marrow": 400}
SOFT, BONE = 50, 1100
#: Lowest and highest value stored.
WINDOWS = {"full range": (-1024, 2000), "brain window": (-10, 90)}
DARK = 0.12
#: Of relaxation times among people; with more, a tissue's contrast in FLAIR may be what no person shows.
SPREAD = 0.03


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scan, what it is, and where it is from."""

    kind: str
    origin: str
    foreign: bool
    image: Nifti1Image


def cases(shared: Path, modality: str, development: bool) -> Iterator[Case]:
    """All scans that the model of one modality is shown."""
    yield from _real(shared, modality, development)
    yield from _phantoms(modality)
    yield from _simulated(shared / "data" / "labels", modality, development)


# --- Real scans -------------------------------------------------------------------------------------------


def half(people: Iterable[str], development: bool) -> set[str]:
    """Every other person: those to choose by, or those to report on."""
    return set(sorted(people)[0 if development else 1 :: 2])


def _real(shared: Path, modality: str, development: bool) -> Iterator[Case]:
    here, there = (RealScans(shared=shared, modality=name) for name in (modality, OTHER[modality]))
    own, others = (_of(real.sites, development) for real in (here, there))
    for scan in own:
        yield Case(kind="familiar", origin="sites", foreign=False, image=scan.image)
    for scan in here.left_out if not development else []:
        yield Case(kind="familiar", origin="left-out person", foreign=False, image=scan.image)
    for scan in (*others, *([] if development else there.left_out)):
        yield Case(kind=OTHER[modality], origin="real", foreign=True, image=scan.image)
    for scan in own:
        yield from _made_of(scan, modality)
    prostates = sorted((shared / "data" / "prostate").glob("sub-*/anat/*_T2w.nii.gz"))
    for path in prostates[0 if development else 1 :: 2]:
        yield Case(kind="prostate", origin="real", foreign=True, image=open_image(path))


def _of(scans: Sequence[Scan], development: bool) -> list[Scan]:
    people = half({scan.person for scan in scans}, development)
    return [scan for scan in scans if scan.person in people]


def _made_of(scan: Scan, modality: str) -> Iterator[Case]:
    """Inverted, and with the tissues of the brain and around it as other protocols show them."""
    turned = np.maximum(intensity_scale(scan.volume) - scan.volume, 0)
    yield _case("inverted", "made of sites", turned * scan.head, scan.zooms)
    yield _case("inverted", "made of sites", turned, scan.zooms)
    try:
        example = examples(measure_scan(scan.name, scan.volume, scan.zooms, modality), modality)[0]
    except BadData:
        return
    for kind, signals in _contrasts(TISSUES):
        yield _case(kind, "made of sites", shown(example, signals), example.zooms)


def shown(example: Example, signals: Mapping[str, float]) -> Volume:
    """A scan with its tissues as the signals say, whatever their order; bone is what is dark in the head."""
    assert example.tissues is not None
    inner, outer = (_through(example.volume, known, signals) for known in example.tissues)
    volume = outer + example.inside * (inner - outer)
    bright = example.volume > DARK
    skull = ndimage.binary_fill_holes(bright) & ~example.region & ~bright
    volume[skull] = signals["bone"]
    return volume.astype(np.float32)


def _through(volume: Volume, known: Mapping[str, float], signals: Mapping[str, float]) -> Volume:
    """Brought from one tissue to the next in straight lines; what is brighter than all keeps its ratio."""
    names = sorted(known, key=lambda name: known[name])
    knots, values = [0.0, *(known[name] for name in names)], [0.0, *(signals[name] for name in names)]
    # Around a skull-stripped brain there are no tissues.
    if not knots[-1] > 0:
        return volume
    return np.interp(volume, knots, values) * np.maximum(volume / knots[-1], 1)


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
    person, tissues = head.person(rng), vary_tissues(rng, SPREAD)
    inside = np.asarray(head.fractions.sum(axis=0) > 0.5)

    def scan(kind: str, signals: Mapping[str, float], *, turn: bool = False) -> Case:
        volume = person.render(signals)
        if turn:
            volume = np.maximum(intensity_scale(volume) - volume, 0) * inside
        level = float(np.median(volume[head.brain]))
        volume, _ = acquire(volume, level or 1.0, inside, rng)
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
    """Of one kind and origin of scans: how many there were, and how many were flagged."""

    modality: str
    kind: str
    origin: str
    foreign: bool
    scans: int
    flagged: int


def count(model: Model, seen: Iterable[Case]) -> list[Count]:
    """Show scans to a model that can tell; familiar ones come first."""
    flags: defaultdict[tuple[bool, str, str], list[bool]] = defaultdict(list)
    for case in seen:
        recognition = model.recognize(case.image)
        assert recognition is not None
        flags[case.foreign, case.kind, case.origin].append(recognition.flagged)
    modality = str(model.card["Modality"])
    return [
        Count(
            modality=modality,
            kind=kind,
            origin=origin,
            foreign=foreign,
            scans=len(found),
            flagged=sum(found),
        )
        for (foreign, kind, origin), found in sorted(flags.items())
    ]


def markdown(counts: Sequence[Count]) -> str:
    """A line for every kind and origin, and two for all of them."""
    text = ["| model | scans | from | number | flagged | share |", "| --- | --- | --- | --- | --- | --- |"]
    text += [_line(one.modality, one.kind, one.origin, [one]) for one in counts]
    for modality in dict.fromkeys(one.modality for one in counts):
        for foreign, name in ((False, "all familiar"), (True, "all foreign")):
            chosen = [one for one in counts if (one.modality, one.foreign) == (modality, foreign)]
            text.append(_line(modality, f"**{name}**", "", chosen))
    return "\n".join(text) + "\n"


def _line(modality: str, kind: str, origin: str, counts: Sequence[Count]) -> str:
    scans, flagged = sum(one.scans for one in counts), sum(one.flagged for one in counts)
    return f"| {modality} | {kind} | {origin} | {scans} | {flagged} | {flagged / max(scans, 1):.0%} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=shared_folder(), help="folder of scans and label maps")
    parser.add_argument("--development", action="store_true", help="measure on what choices are made by")
    parser.add_argument(
        "--model", nargs="+", default=["T1w", "T2w"], help="models (default: the bundled ones)"
    )
    options = parser.parse_args(arguments)
    counts: list[Count] = []
    for name in options.model:
        model = Model.load(name, "cpu")
        if model.recognizer is None:
            print(f"the model {name} cannot tell what it is not meant for", file=sys.stderr)
            return 1
        counts += count(model, cases(options.shared, str(model.card["Modality"]), options.development))
    print(markdown(counts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
