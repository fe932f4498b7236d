"""Whether the values in a JSON object are what the program takes them for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from bids_harmonize.errors import BadData

Fields: TypeAlias = "Mapping[str, Callable[[object], bool] | Fields]"
"""By key, the check that a value must pass, or the fields of the object that it must be."""


def is_text(value: object) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_positive(value: object) -> bool:
    """Whether it is such a number above 0."""
    return is_number(value) and value > 0  # type: ignore[operator]


def list_of(fits: Callable[[object], bool], length: int | None = None) -> Callable[[object], bool]:
    """The check for a list, of a certain length, of values that all pass a check."""
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(fits(one) for one in value)
    )


def check_fields(path: Path, content: Mapping[str, Any], fields: Fields, inside: str = "") -> None:
    """Check an object from a file.

    Parameters
    ----------
    path
        The file.
    content
        The object; keys may be missing, and others than those of `fields` be there.
    fields
        What it must hold.
    inside
        Keys that lead to the object, each with a dot behind it.

    Raises
    ------
    BadData
        A value is something else.
    """
    for key, wanted in fields.items():
        if key not in content:
            continue
        value, name = content[key], f"{inside}{key}"
        if not (wanted(value) if callable(wanted) else isinstance(value, Mapping)):
            raise BadData(f"{path} is damaged: it holds a wrong {name}; restore it, or make it anew.")
        if not callable(wanted):
            check_fields(path, value, wanted, f"{name}.")
