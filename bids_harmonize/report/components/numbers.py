"""Numbers and values as readers want them; the templates use them as filters."""

from __future__ import annotations

import math
from typing import Any

from bids_harmonize.measures.agreement import UNCHANGED

# A space that does not break, between a number and its unit.
SPACE = "\N{NO-BREAK SPACE}"
# Shown in tables in place of a missing number.
NONE = "–"


def pluralize(number: int, noun: str) -> str:
    """A number of things, in the plural where it must be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def join_values(value: Any) -> str:
    """A value from a JSON file, lists in one line."""
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def sentence(text: str) -> str:
    """A phrase with a capital at its beginning and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}."


def digits(value: float) -> str:
    """Three digits, or all before the point from 100 on; `NONE` for what is no number."""
    if not math.isfinite(value):
        return NONE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent: three digits, or two of less than 10 %."""
    return f"{100 * share:.{3 if abs(share) >= 0.1 else 2}g}{SPACE}%"


def whole_percent(share: float) -> str:
    """A share in percent, without decimals."""
    return f"{100 * share:.0f}{SPACE}%"


def signed_percent(change: float) -> str:
    """A change that is given in percent, with its sign and without decimals."""
    sign = "" if round(change) == 0 else "+" if change > 0 else "−"
    return f"{sign}{abs(change):.0f}{SPACE}%"


def decibel(agreement: float) -> str:
    """An agreement in dB; beyond `UNCHANGED`, nothing but rounding is left of the difference."""
    return f"{agreement:.1f}{SPACE}dB" if agreement < UNCHANGED else "identical"


def decibel_as_percent(agreement: float) -> str:
    """The root-mean-square difference as a share of the range, which is what decibels stand for."""
    return f"{100 * 10 ** (-agreement / 20):.2g}{SPACE}%"


def duration(seconds: float) -> str:
    """A time in seconds below 100 s, in minutes below 100 min, else in hours and minutes."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
