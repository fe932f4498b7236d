"""The site that each scan comes from: by participants.tsv, else by how the scans were acquired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_harmonize.errors import BadData, UsageError

# Looked for in this order, whatever is a capital, a hyphen or an underscore.
COLUMNS = ("site", "siteid", "sitename", "scanner", "scannerid", "center", "centre", "institution")
EVERYWHERE = "all scans"
NOT_GIVEN = frozenset({"", "n/a", "na", "nan", "none"})
# What tells scanners and protocols apart, with a unit: how it is told, and by what factor.
TEXTS = ("InstitutionName", "Manufacturer", "ManufacturersModelName")
NUMBERS = {
    "MagneticFieldStrength": ("{} T", 1),
    "RepetitionTime": ("TR {} s", 1),
    "EchoTime": ("TE {} ms", 1000),
}
# More names would make a sentence that nobody reads.
MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Where scans come from.

    Attributes
    ----------
    labels
        The site of each scan; None where it is not known.
    rule
        How that was found out, as a phrase.
    remarks
        Sentences about what was wrong or missing.
    """

    labels: tuple[str | None, ...]
    rule: str
    remarks: tuple[str, ...] = ()


def assign_sites(
    people: Sequence[str],
    sidecars: Sequence[Mapping[str, Any]],
    dataset: Path,
    column: str | None = None,
) -> Sites:
    """Find out where scans come from.

    By a column of the dataset's ``participants.tsv``; else by institution, scanner, field strength, TR and TE
    in the sidecars; else all scans are of one site.

    Parameters
    ----------
    people
        Whose scan it is, as in ``sub-01``, one per scan.
    sidecars
        Of the same scans.
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
        if found := _by_table(people, dataset / "participants.tsv", column):
            return found
    except BadData as error:
        if column is not None:
            raise
        remarks.append(str(error))
    return _by_acquisition(sidecars, remarks)


def _by_table(people: Sequence[str], path: Path, column: str | None) -> Sites | None:
    if not path.exists() and not path.is_symlink():
        if column is None:
            return None
        raise UsageError(f"there is no {path} that could have the column {column!r}; leave --site-column out")
    rows = read_participants(path)
    name = _column(list(next(iter(rows.values()))), path, column)
    if name is None:
        return None
    labels = tuple(_given(rows.get(person, {}).get(name)) for person in people)
    if not any(labels):
        problem = f"the column {name!r} of {path} names no site for any of the scans"
        raise BadData(f"{problem}; correct it") if column is None else UsageError(f"{problem}; name another")
    missing = sorted({person for person, label in zip(people, labels, strict=True) if label is None})
    remarks = (f"{path} names no site for {_named(missing)}; their scans are of no site",) if missing else ()
    return Sites(labels=labels, rule=f"the column “{name}” of participants.tsv", remarks=remarks)


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Read ``participants.tsv``.

    Returns
    -------
    dict
        Per person, as in ``sub-01``, the row by column.

    Raises
    ------
    BadData
        It cannot be read, or is no such table.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8, perhaps Latin-1; save it as UTF-8") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}); fetch it or correct its rights") from error
    # No reader of CSV, which limits cells; a tab within a cell cannot be.
    table = [cells for line in lines if any(cells := line.split("\t"))]
    head = [cell.strip() for cell in table[0]] if table else []
    if "participant_id" not in head or len(set(head)) < len(head):
        raise BadData(f"{path} has no line of unique column names with participant_id; correct it")
    rows: dict[str, dict[str, str]] = {}
    for number, cells in enumerate(table[1:], start=2):
        row = dict(zip(head, (cell.strip() for cell in cells), strict=False))
        if len(cells) != len(head):
            raise BadData(
                f"{path} has {len(cells)} instead of {len(head)} columns in line {number}; "
                "part them by single tabs"
            )
        person = f"sub-{row['participant_id'].removeprefix('sub-')}"
        if rows.setdefault(person, row) != row:
            raise BadData(f"{path} has different lines for {person}; keep one")
    if not rows:
        raise BadData(f"{path} lists nobody; correct it")
    return rows


def _column(there: Sequence[str], path: Path, column: str | None) -> str | None:
    if column is None:
        plain = {"".join(filter(str.isalnum, name)).casefold(): name for name in reversed(there)}
        return next((plain[name] for name in COLUMNS if name in plain), None)
    if column not in there:
        raise UsageError(f"{path} has no column {column!r}, but {', '.join(there)}; correct --site-column")
    return column


def _by_acquisition(sidecars: Sequence[Mapping[str, Any]], remarks: list[str]) -> Sites:
    keys = [_acquisition(sidecar) for sidecar in sidecars]
    if not any(keys):
        return Sites(
            labels=(EVERYWHERE,) * len(keys),
            rule="nothing: neither participants.tsv nor the sidecars tell sites apart, so all count as one",
            remarks=tuple(remarks),
        )
    # Spelled as it is found first.
    spelled: dict[tuple[str, ...], str] = {}
    for key in keys:
        spelled.setdefault(tuple(part.casefold() for part in key), ", ".join(key))
    labels = tuple(spelled[tuple(part.casefold() for part in key)] or None for key in keys)
    if missing := labels.count(None):
        remarks.append(f"the sidecars of {missing} scans say nothing of the scanner; they are of no site")
    rule = "scanner and protocol in the sidecars (institution, manufacturer, model, field strength, TR, TE)"
    return Sites(labels=labels, rule=rule, remarks=tuple(remarks))


def _acquisition(sidecar: Mapping[str, Any]) -> tuple[str, ...]:
    texts = (" ".join(value.split()) for key in TEXTS if isinstance(value := sidecar.get(key), str))
    told = [text for text in texts if _given(text)]
    for key, (form, factor) in NUMBERS.items():
        value = sidecar.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            told.append(form.format(f"{value * factor:.3g}"))
    return tuple(told)


def _given(value: str | None) -> str | None:
    return None if value is None or value.strip().casefold() in NOT_GIVEN else value.strip()


def _named(people: Sequence[str]) -> str:
    some = ", ".join(people[:MOST_NAMED]) + (", …" if len(people) > MOST_NAMED else "")
    return f"{len(people)} of the participants ({some})"
