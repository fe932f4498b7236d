"""One metric of one method: what a tier returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of a method.

    Attributes
    ----------
    value, spread
        Mean and standard deviation over `n` measurements, unless the tier states otherwise.
    better
        Which way is better; "neither" where a metric only guards another, or counts something.
    scans_used
        How many scans went into it.
    """

    tier: str
    modality: str
    metric: str
    method: str
    value: float
    spread: float
    n: int
    better: Better
    scans_used: int

    def to_json(self) -> dict[str, Any]:
        """The row in the result files, which call the metric a figure."""
        named = {"figure" if name == "metric" else name: value for name, value in asdict(self).items()}
        # JSON has neither infinity nor NaN.
        words = {np.inf: "infinite", -np.inf: "-infinite"}
        return {
            name: words.get(value, None if value != value else value) if isinstance(value, float) else value
            for name, value in named.items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` made."""
        numbers = {"infinite": np.inf, "-infinite": -np.inf, None: np.nan}
        read = {"metric" if name == "figure" else name: value for name, value in content.items()}
        return cls(**read | {name: numbers.get(read[name], read[name]) for name in ("value", "spread")})


def summarize(
    tier: str, modality: str, metric: str, method: str, values: Iterable[float], *, better: Better, scans: int
) -> Row:
    """Mean and standard deviation of measurements; values that are not a number are left out."""
    numbers = np.array([value for value in values if not np.isnan(value)], dtype=float)
    finite = numbers[np.isfinite(numbers)]
    return Row(
        tier=tier,
        modality=modality,
        metric=metric,
        method=method,
        value=float(numbers.mean()) if numbers.size else float("nan"),
        spread=float(finite.std(ddof=1)) if finite.size > 1 else 0.0,
        n=int(numbers.size),
        better=better,
        scans_used=scans,
    )


def summarize_each(
    tier: str,
    modality: str,
    method: str,
    measured: Sequence[Mapping[str, float]],
    better: Mapping[str, Better],
    *,
    scans: int,
    kind: str = "",
) -> list[Row]:
    """A row for every metric that was measured, in the order of `better`; `kind` stands before its name."""
    return [
        summarize(
            tier,
            modality,
            f"{kind}{metric}",
            method,
            [values[metric] for values in measured if metric in values],
            better=way,
            scans=scans,
        )
        for metric, way in better.items()
        if any(metric in values for values in measured)
    ]
