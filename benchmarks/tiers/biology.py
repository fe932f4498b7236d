"""Tier I: what differs between people must stay; what differs between protocols must go.

Simulated people are scanned twice: as they are, and as patients, with white matter whose T1 and T2 are longer
by 8 %, a thinner cortex, larger ventricles, and lesions. Both groups have the same people otherwise, and each
is scanned under two protocols. What is compared is the logarithm of the ratio of grey to white matter, which
no scanner's unit changes. The tissues of simulated scans are known, so that no segmentation is in between.

- *Difference between groups kept*: patients against controls under one protocol, after over before; 1 is
  best.
- *Effect size*: that difference over the standard deviation among people, after over before.
- *Difference between protocols left*: the same controls under both, after over before; 0 is best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import tissue_median
from benchmarks.result_rows import Better, Row, summarize
from benchmarks.scans import Scan, Volume
from benchmarks.simulated import GRIDS, PROTOCOLS, acquire
from benchmarks.splits import heads
from bids_harmonize.simulation.label_heads import Head
from bids_harmonize.simulation.protocols import vary_tissues

TIER = "I"
#: Of everybody, by group and protocol.
Ratios = Mapping[str, Mapping[str, NDArray[np.float64]]]
#: How many people have the same head, and how their tissues vary.
PEOPLE, SPREAD = 4, 0.04
#: Of patients: the factor of white matter's T1 and T2, the share of the tissue next to fluid that is lost to
#: it, and the number of lesions.
RELAXATION_FACTOR, LOST, LESIONS = 1.08, 0.5, 12
#: The two protocols: one like that of the reference group, one of another kind and field.
PAIR: Mapping[str, tuple[str, str]] = {
    "T1w": ("MPRAGE 3 T", "gradient echo 1.5 T"),
    "T2w": ("3 T, 6000/100", "1.5 T, 3000/125"),
}
BRAIN = ("white matter", "grey matter", "deep grey matter")

BETTER: dict[str, Better] = {
    "difference between groups kept": "neither",
    "effect size, after over before": "higher",
    "difference between protocols left": "lower",
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """The same people as controls and as patients, under both protocols: ``scans[group][protocol]``."""

    scans: Mapping[str, Mapping[str, Sequence[Scan]]]


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    study = study_of(
        [
            Head.read(data.shared / "data" / "labels" / f"{name}_dseg.nii.gz", GRIDS[data.modality][0])
            for name in heads(data.development)
        ],
        data.modality,
    )
    before = log_ratios(study, None)
    return [row for method in methods for row in _method_rows(method, study, before, data.modality)]


def study_of(brains: Sequence[Head], modality: str) -> Study:
    """Scan everybody in both states under both protocols."""
    people = [(head, draw) for head in brains for draw in range(PEOPLE)]

    def scanned(protocol: str, group: str) -> list[Scan]:
        return [scan_of(*person, protocol, modality, patient=group == "patients") for person in people]

    return Study(
        scans={
            group: {protocol: scanned(protocol, group) for protocol in PAIR[modality]}
            for group in ("controls", "patients")
        }
    )


def scan_of(head: Head, draw: int, protocol: str, modality: str, *, patient: bool) -> Scan:
    """Scan one person; field, noise and gain do not depend on whether they are a patient."""
    seeds = [ord(letter) for letter in head.name]
    rng = np.random.default_rng([draw, *seeds])
    tissues = vary_tissues(rng, SPREAD)
    shown = head
    if patient:
        white = tissues["white matter"]
        tissues |= {
            "white matter": replace(white, t1=white.t1 * RELAXATION_FACTOR, t2=white.t2 * RELAXATION_FACTOR)
        }
        shown = with_atrophy(head)
    signals = PROTOCOLS[modality][protocol].signals(tissues)
    volume = shown.person(rng, {"lesion": LESIONS if patient else 0}).render(signals)
    inside = np.asarray(head.fractions.sum(axis=0) > 0.5)
    scanner = np.random.default_rng([draw, list(PROTOCOLS[modality]).index(protocol), *seeds])
    acquired, _ = acquire(volume, signals["white matter"], inside, scanner)
    state = "patient" if patient else "control"
    return Scan(
        name=f"{head.name}_person-{draw}_{state}_{list(PROTOCOLS[modality]).index(protocol)}_{modality}",
        participant=f"{head.name}-{draw}",
        site=protocol,
        modality=modality,
        volume=acquired,
        zooms=head.zooms,
        affine=np.diag([*head.zooms, 1.0]),
        head=inside,
        brain=head.brain,
        truth={name: shown.share(name) for name in ("white matter", "grey matter")},
    )


def with_atrophy(head: Head) -> Head:
    """A head in which fluid has taken half of the brain tissue next to it: in sulci and around ventricles."""
    fluid = head.share("csf")
    grown = np.maximum(fluid, LOST * ndimage.grey_dilation(fluid, size=(3, 3, 3)))
    fractions = head.fractions.copy()
    tissue = sum(head.share(name) for name in BRAIN)
    taken = np.minimum(grown - fluid, tissue)
    for name in BRAIN:
        share = head.share(name)
        fractions[head.tissues.index(name)] = share - taken * share / np.maximum(tissue, 1e-6)
    fractions[head.tissues.index("csf")] = fluid + taken
    return replace(head, fractions=fractions)


def log_ratios(study: Study, method: Method | None) -> Ratios:
    """The logarithms of everybody's grey/white ratio; without a method, those of the scans as such."""

    def measured(scans: Sequence[Scan]) -> NDArray[np.float64]:
        return np.array([_log_ratio(scan, method.apply(scan) if method else scan.volume) for scan in scans])

    return {
        group: {protocol: measured(scans) for protocol, scans in by_protocol.items()}
        for group, by_protocol in study.scans.items()
    }


def compare(before: Ratios, after: Ratios) -> dict[str, list[float]]:
    """The metrics, by protocol where they are of groups."""
    measured: dict[str, list[float]] = {metric: [] for metric in BETTER}
    for protocol in before["controls"]:
        was, now = (ratios["patients"][protocol] - ratios["controls"][protocol] for ratios in (before, after))
        spreads = [float(np.std(ratios["controls"][protocol], ddof=1)) for ratios in (before, after)]
        kept = float(np.mean(now) / np.mean(was))
        measured["difference between groups kept"].append(kept)
        measured["effect size, after over before"].append(kept * spreads[0] / spreads[1])
    first, second = before["controls"]
    was, now = (ratios["controls"][first] - ratios["controls"][second] for ratios in (before, after))
    measured["difference between protocols left"].append(float(abs(np.mean(now)) / abs(np.mean(was))))
    return measured


def _log_ratio(scan: Scan, volume: Volume) -> float:
    grey, white = (tissue_median(scan, volume, name) for name in ("grey matter", "white matter"))
    return float(np.log(grey / white)) if min(grey, white) > 0 else float("nan")


def _method_rows(
    method: Method,
    study: Study,
    before: Ratios,
    modality: str,
) -> list[Row]:
    # Ratios of a scale whose zero is not the scan's mean nothing.
    if not method.zero_kept:
        return []
    people = len(study.scans["controls"][PAIR[modality][0]])
    return [
        summarize(TIER, modality, metric, method.name, values, better=BETTER[metric], scans=4 * people)
        for metric, values in compare(before, log_ratios(study, method)).items()
    ]
