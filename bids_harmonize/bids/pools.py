"""Which scans belong together: those of one scanner and protocol, that can share an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.bids.participants import read_participants, read_table
from bids_harmonize.bids.sites import TEXTS, assign_sites, stated
from bids_harmonize.errors import UsageError

PROTOCOL, SITE, SESSION = "protocol", "site", "session"
# What tells scanners and sequences apart besides what tells sites apart.
SCANNER_AND_SEQUENCE = (
    *TEXTS,
    "DeviceSerialNumber",
    "ReceiveCoilName",
    "MRAcquisitionType",
    "PulseSequenceType",
    "ScanningSequence",
    "SequenceVariant",
)
# Numbers of one protocol differ from scan to scan by no more than a share: scanners set the shortest echo
# time that they can. Each has a format with its unit, and a factor to it.
NUMBERS = {
    "MagneticFieldStrength": ("{} T", 1, 0.1),
    "RepetitionTime": ("TR {} s", 1, 0.02),
    "EchoTime": ("TE {} ms", 1000, 0.05),
    "InversionTime": ("TI {} s", 1, 0.02),
    "FlipAngle": ("{}°", 1, 0.02),
}
VOXEL_SHARE = 0.05
# A remark names at most this many scans and counts the rest.
MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Acquired:
    """What pools are formed by: a scan and how it was made.

    Attributes
    ----------
    path
        Its path in the dataset.
    metadata
        Its sidecar.
    zooms
        Voxel size, mm.
    """

    path: PurePosixPath
    metadata: Mapping[str, Any]
    zooms: Sequence[float]

    @property
    def participant(self) -> str:
        """The participant, as in ``sub-01``."""
        return self.path.parts[0]


def form_pools(rule: str, scans: Sequence[Acquired], dataset: Path) -> Grouping:
    """Find out which scans belong together.

    Parameters
    ----------
    rule
        ``protocol``: scans of one scanner and protocol; ``site``: as the group level finds sites;
        ``session``: all sessions of a participant under one protocol; else a column of ``participants.tsv``,
        or of the participants' ``scans.tsv``.
    scans
        The scans.
    dataset
        Folder of ``participants.tsv``.

    Raises
    ------
    UsageError
        There is no such column, or it says nothing of any of the scans.
    BadData
        A table that is asked for is malformed.
    """
    if rule == PROTOCOL:
        return _by_protocol(scans)
    if rule == SITE:
        return assign_sites([scan.participant for scan in scans], [scan.metadata for scan in scans], dataset)
    if rule == SESSION:
        protocols = _by_protocol(scans)
        labels = tuple(
            None if label is None else f"{scan.participant}, {label}"
            for scan, label in zip(scans, protocols.labels, strict=True)
        )
        return replace(
            protocols, labels=labels, rule=f"the sessions of each participant, by {protocols.rule}"
        )
    return _by_column(rule, scans, dataset)


def _by_protocol(scans: Sequence[Acquired]) -> Grouping:
    parts = [
        _texts(scans),
        *(_numbers([scan.metadata.get(key) for scan in scans], *how) for key, how in NUMBERS.items()),
    ]
    voxels = [
        _numbers(sizes, "{}", 1, VOXEL_SHARE)
        for sizes in zip(*(sorted(scan.zooms) for scan in scans), strict=True)
    ]
    labels = []
    for number in range(len(scans)):
        stated_parts = [part[number] for part in parts if part[number]]
        size = " x ".join(size[number] for size in voxels)
        labels.append(", ".join([*stated_parts, f"{size} mm"]) if stated_parts else None)
    missing = [scan for scan, label in zip(scans, labels, strict=True) if label is None]
    remarks = [f"sidecars say nothing of the protocol of {_in_no_pool(missing)}"] if missing else []
    return Grouping(
        labels=tuple(labels),
        rule="scanner, sequence, TR, TE, TI, flip angle and voxel size in the sidecars",
        remarks=tuple(remarks),
    )


def _texts(scans: Sequence[Acquired]) -> list[str]:
    """What the sidecars say in words; case makes no difference, and the first spelling is taken."""
    spelled: dict[str, str] = {}
    texts = [", ".join(dict.fromkeys(_words(scan.metadata))) for scan in scans]
    return [spelled.setdefault(text.casefold(), text) for text in texts]


def _words(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in SCANNER_AND_SEQUENCE:
        value = metadata.get(key)
        several = value if isinstance(value, list) else [value]
        words = " ".join(" ".join(word.split()) for word in several if isinstance(word, str))
        if stated(words):
            yield words


def _numbers(values: Sequence[object], form: str, factor: float, share: float) -> list[str]:
    """Each value as its like are written: neighbours that differ by no more than a share are alike."""
    known = sorted({float(value) for value in values if isinstance(value, int | float) and value > 0})
    groups: list[list[float]] = []
    for value in known:
        if groups and value <= (1 + share) * groups[-1][-1]:
            groups[-1].append(value)
        else:
            groups.append([value])
    names = {value: form.format(f"{median(group) * factor:.3g}") for group in groups for value in group}
    return [names.get(float(value), "") if isinstance(value, int | float) else "" for value in values]


def _by_column(column: str, scans: Sequence[Acquired], dataset: Path) -> Grouping:
    participants = dataset / "participants.tsv"
    rows = read_participants(participants) if participants.exists() else {}
    names = [*next(iter(rows.values()), {})]
    if column in names:
        labels = [stated(rows.get(scan.participant, {}).get(column)) for scan in scans]
        table = "participants.tsv"
    else:
        labels, others = _by_scans_tables(column, scans, dataset)
        table = "scans.tsv"
        names += [name for name in others if name not in names]
    if not any(labels):
        having = f"there are {', '.join(names)}" if names else "there are no such tables"
        raise UsageError(
            f"--pool-by {column}: neither participants.tsv nor scans.tsv of {dataset} has such a column that "
            f"says anything of these scans; {having}, besides {PROTOCOL}, {SITE} and {SESSION}"
        )
    missing = [scan for scan, label in zip(scans, labels, strict=True) if label is None]
    remarks = (f"the column {column!r} of {table} says nothing of {_in_no_pool(missing)}",)
    return Grouping(
        labels=tuple(labels), rule=f"the column “{column}” of {table}", remarks=remarks if missing else ()
    )


def _by_scans_tables(
    column: str, scans: Sequence[Acquired], dataset: Path
) -> tuple[list[str | None], list[str]]:
    """What the column says of every scan, and the columns that there are."""
    tables: dict[PurePosixPath, dict[str, dict[str, str]]] = {}
    labels, names = [], list[str]()
    for scan in scans:
        folder = scan.path.parent.parent
        if folder not in tables:
            path = dataset / folder / f"{'_'.join(folder.parts)}_scans.tsv"
            rows = read_table(path, "filename") if path.exists() else []
            tables[folder] = {row["filename"]: row for row in rows}
            names += [name for row in rows[:1] for name in row if name not in names]
        row = tables[folder].get(str(scan.path.relative_to(folder)), {})
        labels.append(stated(row.get(column)))
    return labels, names


def _in_no_pool(scans: Sequence[Acquired]) -> str:
    some = ", ".join(scan.path.name for scan in scans[:MAX_NAMED])
    if len(scans) == 1:
        return f"{some}; it is in no pool"
    return f"{len(scans)} of the scans ({some}{', …' if len(scans) > MAX_NAMED else ''}); they are in no pool"
