"""What an edit as a whole does to the intensities of a scan, whatever it does from place to place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.json_fields import JsonFields, json_key
from bids_harmonize.files.schema import is_number, is_strictly_rising
from bids_harmonize.imaging.brain import ReceiveField, TissueLevels
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.types import Array

# So many points describe the curve of a scan; each stands for the same number of voxels.
POINTS = 32
# The field is found anew so many times, of at most so many voxels; one that cannot be told is none.
FIELD_ROUNDS, MAX_VOXELS, RIDGE = 5, 40_000, 1e-4
# Logarithms are rounded to as many decimals, so that a curve read from a sidecar is the same.
DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class OverallCurve(JsonFields):
    """Output by input, in logarithms: straight between its points, and a mere gain beyond them.

    Attributes
    ----------
    inputs, outputs
        Logarithms of intensities, as many of each, both strictly rising; none if nothing is known.
    white_matter
        The input of white matter, whose output is the unit: it tells the gain of a scan. None where no brain
        was found.
    """

    inputs: Sequence[float] = json_key("LogInputs", is_strictly_rising, default=())
    outputs: Sequence[float] = json_key("LogOutputs", is_strictly_rising, default=())
    white_matter: float | None = json_key("LogWhiteMatter", is_number)

    @classmethod
    def of(cls, before: Volume, after: Volume, region: Mask) -> Self:
        """The curve that comes nearest to an edit, once a smooth receive field is taken off the scan.

        An edit that evens a field makes bright and dark places of one tissue alike: without regard to that,
        its curve would seem flat wherever there is much of a tissue.

        Parameters
        ----------
        before, after
            The scan and what was made of it, of the same shape, not negative.
        region
            The voxels that count; where too few of them are positive, nothing is known.
        """
        seen = np.argwhere(region & (before > 0) & (after > 0))
        seen = seen[:: max(1, len(seen) // MAX_VOXELS)]
        if len(seen) < POINTS:
            return cls()
        inputs, outputs = (np.log(volume[tuple(seen.T)].astype(np.float64)) for volume in (before, after))
        terms = _smooth_terms(seen)
        field = np.zeros_like(inputs)
        for _ in range(FIELD_ROUNDS):
            # Outputs that are even leave the field to the inputs of each.
            inputs_by_output = cls._medians(outputs, inputs - field)
            field += _smooth_part(terms, inputs - field - inputs_by_output(outputs))
        return cls._medians(inputs - field, outputs)

    @classmethod
    def of_levels(cls, before: TissueLevels, after: TissueLevels) -> Self:
        """The curve through the levels of tissues, before and after.

        Levels of tissues tell people apart better than single voxels: around the level of each, an edit
        evens what differs from place to place, and its curve is flat there.
        """
        levels = np.array([astuple(before), astuple(after)], dtype=np.float64)
        if levels.min() <= 0:
            return cls()
        inputs, outputs = np.log(levels)
        order = np.argsort(inputs, kind="stable")
        white = round(float(np.log(before.white_matter)), DECIMALS)
        return replace(cls.through(inputs[order], outputs[order]), white_matter=white)

    @classmethod
    def _medians(cls, inputs: Array, outputs: Array) -> Self:
        groups = np.array_split(np.argsort(inputs, kind="stable"), POINTS)
        return cls.through(
            np.array([np.median(inputs[group]) for group in groups]),
            np.array([np.median(outputs[group]) for group in groups]),
        )

    @classmethod
    def through(cls, inputs: Array, outputs: Array) -> Self:
        """The rising curve nearest to points whose inputs do not fall; those that are level become one."""
        if np.any(np.diff(outputs) < 0):
            # Nobody else need wait for scipy.
            from scipy.optimize import isotonic_regression

            outputs = isotonic_regression(outputs).x
        inputs, outputs = inputs.round(DECIMALS), outputs.round(DECIMALS)
        for side in (0, 1):
            _, group = np.unique((inputs, outputs)[side], return_inverse=True)
            counts = np.bincount(group)
            inputs, outputs = (
                (np.bincount(group, one) / counts).round(DECIMALS) for one in (inputs, outputs)
            )
        return cls(inputs=inputs.tolist(), outputs=outputs.tolist())

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return len(self.inputs) == len(self.outputs) > 0

    def __call__(self, inputs: Array) -> Array:
        """The logarithms of outputs at those of inputs."""
        beyond = inputs - np.clip(inputs, self.inputs[0], self.inputs[-1])
        return np.interp(inputs, self.inputs, self.outputs) + beyond

    @property
    def inverse(self) -> OverallCurve:
        """From outputs to inputs."""
        return OverallCurve(inputs=self.outputs, outputs=self.inputs)


def _smooth_terms(places: NDArray[np.intp]) -> Array:
    """The terms of a polynomial of second order, each 0 on average, at places ``(n, 3)``."""
    low, high = places.min(axis=0), places.max(axis=0)
    x = 2 * (places - low) / np.maximum(high - low, 1) - 1
    terms = np.stack([np.prod(x[:, list(axes)], axis=1) for axes in ReceiveField.POWERS], axis=1)
    return np.asarray(terms - terms.mean(axis=0), dtype=np.float64)


def _smooth_part(terms: Array, values: Array) -> Array:
    """The smooth field that comes nearest to values at the places of the terms."""
    # Unlike `@`, this adds up in one order, however many threads there are.
    squares, products = np.einsum("ni,nj->ij", terms, terms), np.einsum("ni,n->i", terms, values)
    held = RIDGE * len(terms) * np.eye(len(squares))
    return np.asarray(np.einsum("ni,i->n", terms, np.linalg.solve(squares + held, products)))
