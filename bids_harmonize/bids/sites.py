"""The site that each scan comes from: by participants.tsv, else by how the scans were acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.bids.participants import read_participants
from bids_harmonize.errors import BadData, UsageError

# Names of columns are tried in this order; case, hyphens and underscores are ignored.
COLUMNS = ("site", "siteid", "sitename", "scanner", "scannerid", "center", "centre", "institution")
EVERYWHERE = "all scans"
NOT_STATED = frozenset({"", "n/a", "na", "nan", "none"})
# Metadata that tell scanners and protocols apart. Numbers have a format with their unit, and a factor to it.
TEXTS = ("InstitutionName", "Manufacturer", "ManufacturersModelName")
NUMBERS = {
    "MagneticFieldStrength": ("{} T", 1),
    "RepetitionTime": ("TR {} s", 1),
    "EchoTime": ("TE {} ms", 1000),
}
# A remark names at most this many participants and counts the rest.
MAX_NAMED = 5


def assign_sites(
    participants: Sequence[str],
    sidecars: Sequence[Mapping[str, Any]],
    dataset: Path,
    column: str | None = None,
) -> Grouping:
    """Find out where scans come from.

    Sites are taken from a column of the dataset's ``participants.tsv``; else from institution, scanner, field
    strength, TR and TE in the sidecars; else all scans are of one site.

    Parameters
    ----------
    participants
        The participant of each scan, such as ``sub-01``.
    sidecars
        The sidecars of the same scans.
    dataset
        Folder of ``participants.tsv``.
    column
        The column to go by; None: the first of the usual names (`COLUMNS`).

    Raises
    ------
    UsageError
        The column asked for is not there, or names no site for any of the scans.
    BadData
        A column was asked for, and the table is malformed.
    """
    remarks: list[str] = []
    try:
        if found := _by_table(participants, dataset / "participants.tsv", column):
            return found
    except BadData as error:
        if column is not None:
            raise
        remarks.append(str(error))
    return _by_acquisition(sidecars, remarks)


def _by_table(participants: Sequence[str], path: Path, column: str | None) -> Grouping | None:
    if not path.exists() and not path.is_symlink():
        if column is None:
            return None
        raise UsageError(f"--site-column {column}: {path} does not exist; leave --site-column out")
    rows = read_participants(path)
    name = _column(list(next(iter(rows.values()))), path, column)
    if name is None:
        return None
    labels = tuple(stated(rows.get(participant, {}).get(name)) for participant in participants)
    if not any(labels):
        problem = f"the column {name!r} of {path} names no site for any of the scans"
        raise BadData(f"{problem}; correct it") if column is None else UsageError(f"{problem}; name another")
    missing = sorted({who for who, label in zip(participants, labels, strict=True) if label is None})
    remarks = (f"{path} names no site for {_named(missing)}; their scans are of no site",) if missing else ()
    return Grouping(labels=labels, rule=f"the column “{name}” of participants.tsv", remarks=remarks)


def _column(existing: Sequence[str], path: Path, column: str | None) -> str | None:
    if column is None:
        plain = {"".join(filter(str.isalnum, name)).casefold(): name for name in reversed(existing)}
        return next((plain[name] for name in COLUMNS if name in plain), None)
    if column not in existing:
        raise UsageError(f"{path} has no column {column!r}, but {', '.join(existing)}; correct --site-column")
    return column


def _by_acquisition(sidecars: Sequence[Mapping[str, Any]], remarks: list[str]) -> Grouping:
    keys = [_acquisition(sidecar) for sidecar in sidecars]
    if not any(keys):
        return Grouping(
            labels=(EVERYWHERE,) * len(keys),
            rule="nothing, since neither participants.tsv nor the sidecars tell sites apart",
            remarks=tuple(remarks),
        )
    # A site is spelled as it is found first.
    spelled: dict[tuple[str, ...], str] = {}
    for key in keys:
        spelled.setdefault(tuple(part.casefold() for part in key), ", ".join(key))
    labels = tuple(spelled[tuple(part.casefold() for part in key)] or None for key in keys)
    if missing := labels.count(None):
        remarks.append(f"the sidecars of {missing} scans say nothing of the scanner; they are of no site")
    rule = "scanner and protocol in the sidecars (institution, manufacturer, model, field strength, TR, TE)"
    return Grouping(labels=labels, rule=rule, remarks=tuple(remarks))


def _acquisition(sidecar: Mapping[str, Any]) -> tuple[str, ...]:
    texts = (" ".join(value.split()) for key in TEXTS if isinstance(value := sidecar.get(key), str))
    parts = [text for text in texts if stated(text)]
    for key, (form, factor) in NUMBERS.items():
        value = sidecar.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            parts.append(form.format(f"{value * factor:.3g}"))
    return tuple(parts)


def stated(value: str | None) -> str | None:
    """What a cell or a field says; None where it says that nothing is known."""
    return None if value is None or value.strip().casefold() in NOT_STATED else value.strip()


def _named(participants: Sequence[str]) -> str:
    some = ", ".join(participants[:MAX_NAMED]) + (", …" if len(participants) > MAX_NAMED else "")
    return f"{len(participants)} of the participants ({some})"
