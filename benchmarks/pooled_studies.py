"""Do pools keep people apart, and bring protocols together? Simulated studies whose truth is known.

    python -m benchmarks.pooled_studies OUT [--modality T1w T2w] [--people N] [--visits N] [--development]

Everybody is scanned as they are and as a patient (see tier I), under two protocols, each time with a receive
field, noise and a gain of its own, and harmonized once by itself. Pools of all sizes are then formed of the
overall curves. A pool is one rising curve of a scan less a smooth field of its own, so that medians of
tissues follow from those of the scan without that field. What is measured is the logarithm of the ratio of
grey to white matter, which no unit changes.

- *Pools of 1 to 100*, as many patients as others in each: the difference between groups after over before
  (a protocol of more contrast than the reference group's shrinks all differences, and one of less stretches
  them), the effect size (the difference over the spread among people) after over before, the difference
  between protocols left, and the spread among people over that of the raw scans.
- *Sites that differ*: all patients under one protocol, or three in four, and the rest under the other. The
  difference between groups after, over that which there is within one protocol before: what the sites' pools
  take for the scanner is lost.
- *Wrong members*: a pool of 20 of which some scans are of the other protocol: how many of these are named,
  and how much the ratio of the others changes.
- *Made repeats* (tier B): the held-out person of the reference group, turned and with new noise, by itself
  and in a pool with the rest of the group, which is of one protocol: the error over the deviation.
- *Second visits*: the same person in another acquisition, with white matter 1 % darker or brighter: how often
  the change of the ratio has the right sign, before and after.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Data
from benchmarks.formatting import markdown_table
from benchmarks.metrics import tissue_median
from benchmarks.scans import Scan, shared_folder
from benchmarks.simulated import GRIDS, PROTOCOLS, acquire
from benchmarks.splits import heads
from benchmarks.tiers.biology import PAIR, SPREAD, scan_of
from benchmarks.tiers.repeats import MADE, compare, made_repeat
from bids_harmonize.commands.own_curve import own_curve
from bids_harmonize.imaging.loaded_scan import LoadedScan
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.shared_curve import SharedCurve, share_curve, share_of_pool
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import vary_tissues

SIZES = (1, 2, 5, 20, 100)
WRONG, WRONG_POOL = (1, 2, 5), 20
# Factors of white matter's signal at the second visit.
CHANGES = (0.99, 1.01)
GROUPS = ("controls", "patients")

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Harmonized:
    """What is left of a scan: logarithms of grey and white matter before, after, and without its field."""

    before: tuple[float, float]
    after: tuple[float, float]
    evened: tuple[float, float]
    own: OverallCurve

    @classmethod
    def of(cls, scan: Scan, model: Model) -> Harmonized:
        """Harmonize a scan by itself."""
        loaded = LoadedScan.of_image(scan.image)
        harmonized = model.harmonize_loaded(loaded)

        def levels(volume: NDArray[np.float32]) -> tuple[float, float]:
            grey, white = (tissue_median(scan, volume, name) for name in ("grey matter", "white matter"))
            return float(np.log(grey)), float(np.log(white))

        own = own_curve(loaded, harmonized)
        # The scan less the field that a pool leaves to it: rising curves keep medians.
        evened = harmonized.sharing(loaded, lambda inputs: inputs, 1.0)
        return cls(
            before=levels(scan.volume),
            after=levels(harmonized.voxels),
            evened=levels(evened.voxels),
            own=own,
        )

    @property
    def ratio_before(self) -> float:
        """The ratio of the scan as it was made."""
        return self.before[0] - self.before[1]

    @property
    def ratio_by_itself(self) -> float:
        """The ratio after, without a pool."""
        return self.after[0] - self.after[1]

    def ratio(self, shared: SharedCurve, others: int) -> float:
        """The ratio after, with a shared curve."""
        share = share_of_pool(others)
        grey, white = shared.of_scan(self.own)(np.array(self.evened))
        return share * float(grey - white) + (1 - share) * self.ratio_by_itself


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everybody in both groups under both protocols, ``scans[protocol][group]``, in the same order."""

    scans: Mapping[str, Mapping[str, Sequence[Harmonized]]]

    @classmethod
    def of(cls, brains: Sequence[Head], modality: str, people: int, model: Model) -> Study:
        """Scan and harmonize everybody."""
        return cls(
            scans={
                protocol: {
                    group: [
                        Harmonized.of(
                            scan_of(
                                brains[number % len(brains)],
                                number // len(brains),
                                protocol,
                                modality,
                                patient=group == "patients",
                            ),
                            model,
                        )
                        for number in range(people)
                    ]
                    for group in GROUPS
                }
                for protocol in PAIR[modality]
            }
        )


def in_pools(scans: Sequence[Harmonized], size: int) -> Values:
    """The ratios of scans after, in pools of a size, each of neighbours in the list."""
    ratios: list[float] = []
    for start in range(0, len(scans), size):
        pool = scans[start : start + size]
        shared, _ = share_curve({f"{number:03d}": one.own for number, one in enumerate(pool)})
        for one in pool:
            fits = shared.fits(one.own)
            ratios.append(one.ratio(shared, len(pool) - 1) if fits else one.ratio_by_itself)
    return np.array(ratios)


def balanced(study: Study, size: int) -> dict[str, float]:
    """Groups, protocols and people, with pools of one protocol that hold as many patients as others."""
    kept, spread, effect = [], [], []
    controls_after, controls_before = [], []
    for groups in study.scans.values():
        # Neighbours are a control and a patient, never the same person.
        shifted = [*groups["patients"][1:], groups["patients"][0]]
        mixed = [one for both in zip(groups["controls"], shifted, strict=True) for one in both]
        after = in_pools(mixed, size)
        before = np.array([one.ratio_before for one in mixed])
        kept.append(_difference(after) / _difference(before))
        spread.append(float(np.std(after[::2], ddof=1) / np.std(before[::2], ddof=1)))
        effect.append(kept[-1] / spread[-1])
        controls_after.append(after[::2])
        controls_before.append(before[::2])
    left = np.mean(controls_after[0] - controls_after[1]) / np.mean(controls_before[0] - controls_before[1])
    return {
        "difference between groups kept": float(np.mean(kept)),
        "effect size, after over before": float(np.mean(effect)),
        "difference between protocols left": float(abs(left)),
        "spread among people, over raw": float(np.mean(spread)),
    }


def _difference(ratios: Values) -> float:
    """Patients less others, of a list in which they take turns."""
    return float(np.mean(ratios[1::2]) - np.mean(ratios[::2]))


def unbalanced(study: Study, share: float) -> float:
    """The difference between groups after, over that within a protocol before, if sites have unlike people.

    Parameters
    ----------
    share
        How many of the patients are scanned under the first protocol, and of the others under the second.
    """
    first, second = study.scans.values()
    people = len(first["controls"])
    here = round(share * people)
    sites = [
        (first["patients"][:here], first["controls"][: people - here]),
        (second["patients"][here:], second["controls"][people - here :]),
    ]
    patients, controls = list[float](), list[float]()
    for ill, well in sites:
        ratios = in_pools([*ill, *well], len(ill) + len(well))
        patients += ratios[: len(ill)].tolist()
        controls += ratios[len(ill) :].tolist()
    before = [
        one.ratio_before - other.ratio_before
        for groups in (first, second)
        for one, other in zip(groups["patients"], groups["controls"], strict=True)
    ]
    return float((np.mean(patients) - np.mean(controls)) / np.mean(before))


def wrong_members(study: Study, wrong: int) -> dict[str, float]:
    """A pool with scans of the other protocol in it: the share that is named, and the others' mean change."""
    first, second = (groups["controls"] for groups in study.scans.values())
    right = {f"{number:03d}": one for number, one in enumerate(first[: WRONG_POOL - wrong])}
    foreign = {f"wrong-{number:03d}": one for number, one in enumerate(second[:wrong])}
    pure, _ = share_curve({name: one.own for name, one in right.items()})
    mixed, left_out = share_curve({name: one.own for name, one in {**right, **foreign}.items()})
    change = [abs(one.ratio(mixed, WRONG_POOL) - one.ratio(pure, WRONG_POOL)) for one in right.values()]
    return {
        "named": sum(name in left_out for name in foreign) / wrong,
        "of the right ones named": sum(name in left_out for name in right) / len(right),
        "change of the others' ratio": float(np.mean(change)),
    }


def second_visits(brains: Sequence[Head], modality: str, people: int, model: Model) -> dict[str, float]:
    """How often a change of 1 % of white matter has the right sign: raw, by itself, and in a pool of all."""
    right: dict[str, list[bool]] = {"raw": [], "by itself": [], "in a pool": []}
    for protocol in PAIR[modality]:
        pairs = []
        for number in range(people):
            person = brains[number % len(brains)], number // len(brains)
            first = scan_of(*person, protocol, modality, patient=False)
            second = second_visit(first, *person, protocol, CHANGES[number % 2])
            pairs.append((Harmonized.of(first, model), Harmonized.of(second, model)))
        everything = [one for pair in pairs for one in pair]
        shared, _ = share_curve({f"{number:03d}": one.own for number, one in enumerate(everything)})
        others = len(everything) - 1
        for number, (before, after) in enumerate(pairs):
            # White matter that is darker makes the ratio larger.
            wanted = -np.sign(np.log(CHANGES[number % 2]))
            changes = {
                "raw": after.ratio_before - before.ratio_before,
                "by itself": after.ratio_by_itself - before.ratio_by_itself,
                "in a pool": after.ratio(shared, others) - before.ratio(shared, others),
            }
            for how, change in changes.items():
                right[how].append(bool(np.sign(change) == wanted))
    return {how: float(np.mean(found)) for how, found in right.items()}


def made_repeats(modality: str, model: Model) -> dict[str, float]:
    """The error over the deviation of made repeats, dB: raw, by itself, and in a pool with the group."""
    data = Data(shared=shared_folder(), modality=modality)
    repeats = [made_repeat(scan, draw) for scan in data.real.held_out for draw in range(MADE)]
    pairs = [scan for repeat in repeats for scan in (repeat.first, repeat.second)]
    scans = {scan.name: scan for scan in (*data.real.reference, *pairs)}
    loaded = {name: LoadedScan.of_image(scan.image) for name, scan in scans.items()}
    alone = {name: model.harmonize_loaded(scan) for name, scan in loaded.items()}
    own = {name: own_curve(loaded[name], harmonized) for name, harmonized in alone.items()}
    group = {scan.name: own[scan.name] for scan in data.real.reference}
    errors: dict[str, list[float]] = {"raw": [], "by itself": [], "in a pool": []}
    for repeat in repeats:
        names = [repeat.first.name, repeat.second.name]
        shared, _ = share_curve({**group, **{name: own[name] for name in names}})
        pooled = [alone[name].sharing(loaded[name], shared.of_scan(own[name]), 1.0) for name in names]
        volumes = {
            "raw": (repeat.first.volume, repeat.second.volume),
            "by itself": tuple(alone[name].voxels for name in names),
            "in a pool": tuple(one.voxels for one in pooled),
        }
        for how, (first, second) in volumes.items():
            errors[how].append(compare(repeat, first, second)["err/SD inside the head, dB"])
    return {how: float(np.mean(found)) for how, found in errors.items()}


def second_visit(first: Scan, head: Head, draw: int, protocol: str, factor: float) -> Scan:
    """The same person in another acquisition, the signal of white matter times a factor."""
    seeds = [draw, *(ord(letter) for letter in head.name)]
    # As `scan_of` draws the person.
    rng = np.random.default_rng(seeds)
    tissues = vary_tissues(rng, SPREAD)
    white = tissues["white matter"]
    tissues["white matter"] = replace(white, proton_density=white.proton_density * factor)
    signals = PROTOCOLS[first.modality][protocol].signals(tissues)
    rendering = head.person(rng, {"lesion": 0}).render(signals)
    scanner = np.random.default_rng([*seeds, list(PROTOCOLS[first.modality]).index(protocol)])
    volume, _ = acquire(rendering, signals["white matter"], first.head, scanner)
    return replace(first, name=f"{first.name}_second", volume=volume)


def report(
    study: Study, visits: Mapping[str, float], repeats: Mapping[str, float]
) -> Iterable[tuple[str, str, float]]:
    """Rows: what, of which pools, the figure."""
    people = 2 * len(study.scans[next(iter(study.scans))]["controls"])
    for size in SIZES:
        if size <= people:
            for figure, value in balanced(study, size).items():
                yield figure, f"pools of {size}", value
    for share in (0.75, 1.0):
        sites = f"{share:.0%} of the patients at one site"
        yield "difference between groups kept", sites, unbalanced(study, share)
    for wrong in WRONG:
        for figure, value in wrong_members(study, wrong).items():
            yield f"wrong members: {figure}", f"{wrong} of {WRONG_POOL}", value
    for how, value in visits.items():
        yield "second visit: right sign of 1 %", how, value
    for how, value in repeats.items():
        yield "made repeats: err/SD, dB", how, value


def main() -> None:
    """Simulate, harmonize, form pools, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for pooled_studies.md and .json")
    parser.add_argument("--modality", nargs="+", choices=PAIR, default=list(PAIR), help="default: both")
    parser.add_argument("--people", type=int, default=50, help="people in each group (default: 50)")
    parser.add_argument("--visits", type=int, default=20, help="people who are seen twice (default: 20)")
    parser.add_argument("--model", help="weights instead of those that come with the package")
    parser.add_argument("--development", action="store_true", help="simulate from the heads to choose by")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    labels = shared_folder() / "data" / "labels"
    rows: list[tuple[str, str, str, float]] = []
    for modality in options.modality:
        model = Model.load(options.model or modality, device="cpu")
        names = heads(options.development)
        brains = [Head.read(labels / f"{name}_dseg.nii.gz", GRIDS[modality][0]) for name in names]
        study = Study.of(brains, modality, options.people, model)
        visits = second_visits(brains, modality, options.visits, model)
        repeats = made_repeats(modality, model)
        rows += [(modality, *row) for row in report(study, visits, repeats)]
    table = markdown_table(
        ["modality", "figure", "pools", "value"],
        [[modality, figure, pools, f"{value:.3f}"] for modality, figure, pools, value in rows],
    )
    (options.out / "pooled_studies.md").write_text(table + "\n", encoding="utf-8")
    record = [
        {"modality": modality, "figure": figure, "pools": pools, "value": value}
        for modality, figure, pools, value in rows
    ]
    content = {
        "People": options.people,
        "Visits": options.visits,
        "Development": options.development,
        "Rows": record,
    }
    (options.out / "pooled_studies.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
