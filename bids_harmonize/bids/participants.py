"""The tables of a dataset: participants, and the scans of each."""

from __future__ import annotations

from pathlib import Path

from bids_harmonize.errors import BadData

Row = dict[str, str]


def read_participants(path: Path) -> dict[str, Row]:
    """Read ``participants.tsv``.

    Returns
    -------
    dict
        The row of each participant, such as ``sub-01``, by column.

    Raises
    ------
    BadData
        It cannot be read, or is no such table.
    """
    rows = read_table(path, "participant_id")
    if not rows:
        raise BadData(f"{path} lists no participant; correct it")
    by_name: dict[str, Row] = {}
    for row in rows:
        participant = f"sub-{row['participant_id'].removeprefix('sub-')}"
        if by_name.setdefault(participant, row) != row:
            raise BadData(f"{path} has different lines for {participant}; keep one")
    return by_name


def read_table(path: Path, index: str) -> list[Row]:
    """Read a table of BIDS that has a column `index`; the rows by column.

    Raises
    ------
    BadData
        It cannot be read, or is no such table.
    """
    try:
        # Spreadsheets put a byte-order mark in front, which BIDS allows in tables: this encoding skips it.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8, perhaps Latin-1; save it as UTF-8") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror}); fetch it or correct its rights") from error
    # The reader of CSV files would limit the size of cells, and no cell can hold a tab.
    table = [cells for line in lines if any(cells := line.split("\t"))]
    head = [cell.strip() for cell in table[0]] if table else []
    if index not in head or len(set(head)) < len(head):
        raise BadData(f"{path} has no line of unique column names with {index}; correct it")
    rows = []
    for number, cells in enumerate(table[1:], start=2):
        if len(cells) != len(head):
            raise BadData(
                f"{path} has {len(cells)} instead of {len(head)} columns in line {number}; "
                "separate them by single tabs"
            )
        rows.append(dict(zip(head, (cell.strip() for cell in cells), strict=True)))
    return rows
