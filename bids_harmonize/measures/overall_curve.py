"""What an edit as a whole does to the intensities of a scan, whatever it does from place to place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import isotonic_regression

from bids_harmonize.files.json_fields import JsonFields, json_key
from bids_harmonize.files.schema import is_strictly_rising
from bids_harmonize.imaging.types import Mask, Volume
from bids_harmonize.measures.types import Array

# So many points describe the curve of a scan; each stands for the same number of voxels.
POINTS = 32
# Logarithms are rounded to as many decimals, so that a curve read from a sidecar is the same.
DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class OverallCurve(JsonFields):
    """Output by input, in logarithms: straight between its points, and a mere gain beyond them.

    Attributes
    ----------
    inputs, outputs
        Logarithms of intensities, as many of each, both strictly rising; none if nothing is known.
    """

    inputs: Sequence[float] = json_key("LogInputs", is_strictly_rising, default=())
    outputs: Sequence[float] = json_key("LogOutputs", is_strictly_rising, default=())

    @classmethod
    def of(cls, before: Volume, after: Volume, region: Mask) -> Self:
        """The curve that comes nearest to an edit.

        Parameters
        ----------
        before, after
            The scan and what was made of it, of the same shape, not negative.
        region
            The voxels that count; where too few of them are positive, nothing is known.
        """
        seen = region & (before > 0) & (after > 0)
        inputs, outputs = (np.log(volume[seen].astype(np.float64)) for volume in (before, after))
        if inputs.size < POINTS:
            return cls()
        groups = np.array_split(np.argsort(inputs, kind="stable"), POINTS)
        return cls.through(
            np.array([np.median(inputs[group]) for group in groups]),
            np.array([np.median(outputs[group]) for group in groups]),
        )

    @classmethod
    def through(cls, inputs: Array, outputs: Array) -> Self:
        """The rising curve nearest to points whose inputs do not fall; those that are level become one."""
        inputs, outputs = inputs.round(DECIMALS), isotonic_regression(outputs).x.round(DECIMALS)
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
