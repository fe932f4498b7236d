"""Whether the values in a JSON object are what the program takes them for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from bids_harmonize.errors import BadData

# Numbers measured on float32 images are 0 or within these.
MIN_FLOAT32, MAX_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127

Fields: TypeAlias = "Mapping[str, Callable[[object], bool] | Fields]"
"""For every key, the check that its value must pass, or the fields of the nested object."""


def is_text(value: object) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_object(value: object) -> bool:
    """Whether it is an object."""
    return isinstance(value, Mapping)


def is_flag(value: object) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_positive(value: object) -> bool:
    """Whether it is a finite number above 0."""
    return is_number(value) and value > 0  # type: ignore[operator]


def is_float32(value: object) -> bool:
    """Whether it is a number as measured on float32 images: not negative, and 0 or of their range."""
    return is_number(value) and (value == 0 or MIN_FLOAT32 <= value <= MAX_FLOAT32)  # type: ignore[operator]


def is_float32_ratio(value: object) -> bool:
    """Whether it is a number that the quotient of two such numbers can be."""
    return is_number(value) and 0 <= value <= MAX_FLOAT32**2  # type: ignore[operator]


def is_rising(value: object) -> bool:
    """Whether it is a list of such numbers, none smaller than the one before."""
    return isinstance(value, list) and all(map(is_float32, value)) and value == sorted(value)


def is_strictly_rising(value: object) -> bool:
    """Whether it is a list of numbers, each larger than the one before."""
    return isinstance(value, list) and list_of(is_number)(value) and all(a < b for a, b in pairwise(value))


def list_of(fits: Callable[[object], bool], length: int | None = None) -> Callable[[object], bool]:
    """The check for a list, of a certain length, of values that all pass a check."""
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(fits(item) for item in value)
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
            raise wrong_value(path, name)
        if not callable(wanted):
            check_fields(path, value, wanted, f"{name}.")


def wrong_value(path: Path, name: str) -> BadData:
    """The error of a value in a file that is not what it must be; keys that lead to it are in its name."""
    return BadData(f"{path} is damaged: the value of {name} is not valid; restore it, or make it again")
