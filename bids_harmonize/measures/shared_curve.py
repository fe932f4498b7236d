"""One curve for all scans of a protocol.

The overall curves of scans of one protocol differ by the gain of each scan, and by what is special about each
person: the network, which sees one scan, cannot tell a person from a protocol. The shared curve is the median
of them all, each brought to it by a gain; so people keep what tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bids_harmonize.measures.overall_curve import OverallCurve

# Points of a shared curve, and rounds in which it and the gains are found in turn.
POINTS, ROUNDS = 64, 20
# With so many others a scan takes the shared curve as it is; with fewer it keeps a share of its own, as they
# say less of the protocol.
OTHERS_IN_FULL = 4
# How far a scan's own curve may be from the shared one, as the root mean square of the difference of
# logarithms over its voxels; scans of another contrast are farther.
MAX_DISTANCE = 0.15
# Curves of brains go through the levels of so many tissues.
LEVELS = 3
# Tissues of people lie within this of the level of the pool, as a logarithm; but a part of the way from one
# tissue to the next is left for the contrast to change.
AROUND, MOST_OF_GAP = 0.2, 0.4
# Gains are looked for within this factor of the first guess, as a logarithm.
MAX_LOG_GAIN = 20.0


@dataclass(frozen=True, kw_only=True)
class SharedCurve:
    """The curve that scans of one protocol share.

    Attributes
    ----------
    curve
        From the intensities of each scan, times its gain, to outputs.
    scans
        How many scans it is the median of.
    """

    curve: OverallCurve
    scans: int

    @classmethod
    def of(cls, curves: Sequence[OverallCurve]) -> Self:
        """What curves share, of which there is at least one."""
        lowest = float(np.median([one.outputs[0] for one in curves]))
        highest = float(np.median([one.outputs[-1] for one in curves]))
        outputs = np.linspace(lowest, highest, POINTS)
        # Read from outputs to inputs, a gain shifts a curve as a whole.
        inputs = np.stack([one.inverse(outputs) for one in curves])
        gains = -inputs.mean(axis=1)
        for _ in range(ROUNDS):
            shared = np.median(inputs + gains[:, None], axis=0)
            gains = np.median(shared - inputs, axis=1)
        curve = _through_levels(curves) or OverallCurve.through(shared, outputs)
        return cls(curve=curve, scans=len(curves))

    def log_gain(self, own: OverallCurve) -> float:
        """The gain of a scan, as a logarithm: with it, white matter's output is that of its own.

        Where no brain was found, the mean output over its voxels is.
        """
        if own.white_matter is None:
            return self._mean_log_gain(own)
        white = np.array([own.white_matter])
        return float((self.curve.inverse(own(white)) - white)[0])

    def _mean_log_gain(self, own: OverallCurve) -> float:
        # As in `OverallCurve.through`.
        from scipy.optimize import brentq

        inputs, outputs = np.array(own.inputs), np.array(own.outputs)
        guess = float(np.mean(self.curve.inverse(outputs) - inputs))
        return float(
            brentq(
                lambda gain: float(np.mean(self.curve(inputs + gain) - outputs)),
                guess - MAX_LOG_GAIN,
                guess + MAX_LOG_GAIN,
            )
        )

    def distance(self, own: OverallCurve) -> float:
        """How far a scan's own curve is from the shared one, whatever its gain."""
        instead = self.curve(np.array(own.inputs) + self._mean_log_gain(own))
        return float(np.sqrt(np.mean(np.square(instead - own.outputs))))

    def fits(self, own: OverallCurve) -> bool:
        """Whether a scan may be of the protocol."""
        return self.distance(own) <= MAX_DISTANCE

    def of_scan(self, own: OverallCurve) -> OverallCurve:
        """The shared curve with the gain of a scan, from its inputs to outputs."""
        inputs = np.array(self.curve.inputs) - self.log_gain(own)
        return OverallCurve(inputs=inputs.tolist(), outputs=self.curve.outputs)


def _through_levels(curves: Sequence[OverallCurve]) -> OverallCurve | None:
    """The shared curve through the levels of the tissues of brains; None where curves are of something else.

    Around each level it is a mere gain: what tells people apart in a tissue, a diffuse change for example, is
    as large after as before, relative to the tissue, and the contrast of the protocol changes in between.
    """
    brains = [one for one in curves if one.white_matter is not None and len(one.inputs) == LEVELS]
    if 2 * len(brains) <= len(curves):
        return None
    x = np.median([np.array(one.inputs) - one.white_matter for one in brains], axis=0)
    y = np.median([one.outputs for one in brains], axis=0)
    gaps = np.minimum(np.diff(x), np.diff(y)) * MOST_OF_GAP
    width = np.minimum(AROUND, np.minimum(np.append(gaps, np.inf), np.append(np.inf, gaps)))
    ends = [np.stack([level - width, level + width], axis=1).ravel() for level in (x, y)]
    return OverallCurve.through(ends[0], ends[1])


def share_of_pool(others: int) -> float:
    """How much of the shared curve a scan takes, from 0 to 1, given how many others it is made of."""
    return min(1.0, others / OTHERS_IN_FULL)


def share_curve(curves: Mapping[str, OverallCurve]) -> tuple[SharedCurve, dict[str, float]]:
    """The curve that scans share, and the distance of each that does not fit and is left out of it.

    The farthest are left out first, and with them all that are at least half as far: one at a time would take
    long where there are many. There is at least one scan, and one fits itself.
    """
    kept, left_out = dict(sorted(curves.items())), dict[str, float]()
    while True:
        shared = SharedCurve.of(list(kept.values()))
        distances = {name: shared.distance(own) for name, own in kept.items()}
        limit = max(MAX_DISTANCE, max(distances.values()) / 2)
        far = [name for name, distance in distances.items() if distance > limit]
        if len(far) == len(kept):
            far.remove(min(far, key=lambda name: (distances[name], name)))
        if not far:
            return shared, left_out
        left_out |= {name: distances[name] for name in far}
        kept = {name: own for name, own in kept.items() if name not in left_out}
