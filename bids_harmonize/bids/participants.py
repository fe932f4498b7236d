"""The table of participants of a dataset."""

from __future__ import annotations

from pathlib import Path

from bids_harmonize.errors import BadData


def read_participants(path: Path) -> dict[str, dict[str, str]]:
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
    if "participant_id" not in head or len(set(head)) < len(head):
        raise BadData(f"{path} has no line of unique column names with participant_id; correct it")
    rows: dict[str, dict[str, str]] = {}
    for number, cells in enumerate(table[1:], start=2):
        row = dict(zip(head, (cell.strip() for cell in cells), strict=False))
        if len(cells) != len(head):
            raise BadData(
                f"{path} has {len(cells)} instead of {len(head)} columns in line {number}; "
                "separate them by single tabs"
            )
        participant = f"sub-{row['participant_id'].removeprefix('sub-')}"
        if rows.setdefault(participant, row) != row:
            raise BadData(f"{path} has different lines for {participant}; keep one")
    if not rows:
        raise BadData(f"{path} lists no participant; correct it")
    return rows
