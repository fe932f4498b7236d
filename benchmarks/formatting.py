"""How numbers and tables are written in the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def number(value: float) -> str:
    """Three significant digits, at most three decimals; whole numbers from a thousand on."""
    if np.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    # 99.99 is written 100, not 100.0.
    rounded = float(f"{value:.3g}")
    decimals = 2 - int(np.floor(np.log10(abs(rounded))))
    return f"{rounded:.{min(max(decimals, 0), 3)}f}"


def number_or_dash(value: float) -> str:
    """`number` with a typographic minus sign; a dash where there is no finite value."""
    if not np.isfinite(value):
        return "-"
    return f"−{number(-value)}" if value < 0 else number(value)


def limit(value: float | None) -> str:
    """What a measurement may be at most; a dash where nothing is required."""
    return "-" if value is None else f"≤ {value:g}"


def duration(hours: float) -> str:
    """Hours, in minutes below one hour and in days from two days on."""
    if hours >= 48:
        return f"{number(hours / 24)} days"
    return f"{number(hours)} h" if hours >= 1 else f"{number(60 * hours)} min"


def signed_percent(log_gain: float) -> str:
    """The change that a logarithmic gain makes, in percent."""
    return f"{np.exp(log_gain) - 1:+.0%}".replace("-", "−")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without a line break at its end."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
