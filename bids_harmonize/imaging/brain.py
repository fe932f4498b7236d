"""The brain of a scan: where it is, and what its tissues look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations_with_replacement
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.imaging.types import Mask, Volume

# What the receive field is modelled by, and how far it may be from 1: powers of the place up to the second.
FIELD_ORDER = 2
MAX_LOG_FIELD = 0.8
# So little are large coefficients held down that only those that the data leave open are.
RIDGE = 1e-3
FIELD_UNIT_MM = 100.0
# Lesions and vessels are no part of a field: what differs from its tissue by more than this many standard
# deviations does not count, and by less the less (Beaton and Tukey 1974, doi:10.1080/00401706.1974.10489171).
# So many rounds are enough where a fifth of white matter is lesions, and so many voxels.
OUTLIER, ROBUST_ROUNDS, FIELD_VOXELS = 3.0, 6, 5_000
# The standard deviation over the median deviation, of normal values; values that are all alike have this.
DEVIATION, LEAST_DEVIATION = 1.4826, 1e-6
# Grey matter that is as near as this to the outside of a brain is cortex.
CORTEX_MM = 15.0


@dataclass(frozen=True, kw_only=True)
class TissueLevels:
    """Medians of a brain's tissues, a smooth receive field removed."""

    csf: float
    grey_matter: float
    white_matter: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Brain:
    """Where a brain and its tissues lie on the grid of a volume.

    Attributes
    ----------
    mask
        ``(x, y, z)``; the fluid around the brain is part of it.
    csf, grey_matter, white_matter
        Voxels that belong to a tissue beyond doubt; none of the masks is empty.
    zooms
        Voxel size in mm.
    """

    mask: Mask
    csf: Mask
    grey_matter: Mask
    white_matter: Mask
    zooms: tuple[float, float, float]

    def levels(self, volume: Volume) -> TissueLevels:
        """What tissues look like in a volume on the same grid, of any unit, not negative.

        A receive field would mix their order up, since cortex lies at the edge of a brain and white matter in
        its middle: it is found where the two tissues are, and taken out.
        """
        field = self.receive_field(volume)
        if field is None:
            return TissueLevels(**{name: _median(volume[mask]) for name, mask in self._tissues().items()})
        return TissueLevels(
            **{
                name: _median(volume[mask] / np.exp(field.at(np.argwhere(mask) * self.zooms)))
                for name, mask in self._tissues().items()
            }
        )

    def receive_field(self, volume: Volume) -> ReceiveField | None:
        """The receive field in a volume on the same grid; None where white or grey matter is all zero."""
        matter = [self.grey_matter & (volume > 0), self.white_matter & (volume > 0)]
        places = [np.argwhere(mask) * self.zooms for mask in matter]
        logs = [np.log(volume[mask]) for mask in matter]
        return ReceiveField.fit(places, logs) if all(values.size for values in logs) else None

    @cached_property
    def thick(self) -> Brain:
        """The same brain with the half of each tissue that has most of it around; of grey matter, the cortex.

        Where a tissue is thin it shares its voxels with its neighbours, above all the cortex of old people
        with fluid. Nuclei deep in the brain are thick, but of another grey.
        """
        # It imports scipy, for which nobody else need wait.
        from bids_harmonize.imaging.masks import within

        cortex = self.grey_matter & within(~self.mask, self.zooms, CORTEX_MM)
        return replace(
            self,
            csf=_inner_half(self.csf),
            grey_matter=_inner_half(cortex if cortex.any() else self.grey_matter),
            white_matter=_inner_half(self.white_matter),
        )

    def in_whole(self, part: tuple[slice, ...], shape: Sequence[int]) -> Brain:
        """The brain of a part of a volume, on the grid of the whole."""

        def whole(mask: Mask) -> Mask:
            full = np.zeros(shape, dtype=bool)
            full[part] = mask
            return full

        return self.on_grid(whole, self.zooms)

    def on_grid(self, turn: Callable[[Mask], Mask], zooms: tuple[float, float, float]) -> Brain:
        """The brain on another grid, given what becomes of a mask there."""
        return Brain(
            mask=np.ascontiguousarray(turn(self.mask)),
            zooms=zooms,
            **{name: np.ascontiguousarray(turn(mask)) for name, mask in self._tissues().items()},
        )

    def _tissues(self) -> dict[str, Mask]:
        return {"csf": self.csf, "grey_matter": self.grey_matter, "white_matter": self.white_matter}


@dataclass(frozen=True, kw_only=True)
class NoBrain:
    """No brain was found, and why; the reason is a sentence without capital and full stop."""

    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ReceiveField:
    """The logarithm of a smooth field, a polynomial of the place, 0 on average where it was fitted.

    Attributes
    ----------
    centre
        Place from which others are measured, mm.
    coefficients
        Of the powers of the place, in `FIELD_UNIT_MM`.
    """

    centre: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    POWERS: ClassVar[Sequence[tuple[int, ...]]] = [
        axes for order in range(1, FIELD_ORDER + 1) for axes in combinations_with_replacement(range(3), order)
    ]

    @classmethod
    def fit(
        cls, places: Sequence[NDArray[np.floating]], logs: Sequence[NDArray[np.floating]]
    ) -> ReceiveField:
        """The field under which most values of every tissue differ least from one another.

        Parameters
        ----------
        places
            ``(n, 3)`` in mm, for every tissue.
        logs
            Logarithms of the intensities at those places.
        """
        centre = np.concatenate(places).mean(axis=0)
        step = -(-sum(len(values) for values in logs) // FIELD_VOXELS)
        powers = [cls._powers(where[::step] - centre) for where in places]
        logs = [values[::step] for values in logs]
        weights: list[NDArray[np.floating]] = [np.ones(len(values)) for values in logs]
        for _ in range(ROBUST_ROUNDS):
            coefficients = cls._fitted(powers, logs, weights)
            weights = [
                _weights(values - np.einsum("ni,i->n", columns, coefficients))
                for columns, values in zip(powers, logs, strict=True)
            ]
        coefficients = cls._fitted(powers, logs, weights)
        middle = np.concatenate(powers).mean(axis=0)
        return cls(centre=centre, coefficients=np.append(coefficients, -middle @ coefficients))

    @staticmethod
    def _fitted(
        powers: Sequence[NDArray[np.floating]],
        logs: Sequence[NDArray[np.floating]],
        weights: Sequence[NDArray[np.floating]],
    ) -> NDArray[np.floating]:
        """Coefficients of the powers, by weighted least squares."""
        # Within a tissue only differences count, so that its own level is no part of the field.
        rows, wanted = (
            np.concatenate([one - np.average(one, 0, by) for one, by in zip(several, weights, strict=True)])
            for several in (powers, logs)
        )
        weight = np.concatenate(weights)
        held = RIDGE * weight.sum() * np.eye(rows.shape[1])
        # Unlike `@`, this adds up in one order, however many threads there are.
        weighted = rows * weight[:, None]
        squares, products = np.einsum("ni,nj->ij", weighted, rows), np.einsum("ni,n->i", weighted, wanted)
        return np.asarray(np.linalg.solve(squares + held, products))

    def at(self, places: NDArray[np.floating]) -> NDArray[np.floating]:
        """The logarithm of the field at places ``(n, 3)``, mm."""
        # Term by term in the precision of the places: of a whole volume, all powers at once are too many.
        units = ((places - self.centre.astype(places.dtype)) / places.dtype.type(FIELD_UNIT_MM)).T
        *factors, constant = self.coefficients.astype(places.dtype)
        log = np.full(len(places), constant)
        for factor, axes in zip(factors, self.POWERS, strict=True):
            log += reduce(np.multiply, [units[axis] for axis in axes], factor)
        return np.clip(log, -MAX_LOG_FIELD, MAX_LOG_FIELD)

    @classmethod
    def _powers(cls, offsets: NDArray[np.floating]) -> NDArray[np.floating]:
        units = offsets.T / FIELD_UNIT_MM
        return np.stack([reduce(np.multiply, [units[axis] for axis in axes]) for axes in cls.POWERS]).T


def _weights(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much values count, by how far they are from their median."""
    away = np.abs(values - np.median(values))
    limit = OUTLIER * max(DEVIATION * float(np.median(away)), LEAST_DEVIATION)
    return np.square(np.clip(1 - np.square(away / limit), 0, None))


def _inner_half(mask: Mask) -> Mask:
    # As in `Brain.thick`.
    from scipy import ndimage

    around = ndimage.uniform_filter(mask.astype(np.float32), 3, mode="constant")
    return np.asarray(mask & (around >= np.median(around[mask])), dtype=bool)


def _median(values: NDArray[np.floating]) -> float:
    return float(np.median(values))
