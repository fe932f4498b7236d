"""The shapes that a digital head is drawn from: superellipsoids, how they join, and the parts of a head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.phantom.space import Array, Vector


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A superellipsoid of one tissue, in mm; a mirrored one is drawn left and right."""

    tissue: str
    at: Vector
    radii: Vector
    mirrored: bool = False
    boxy: bool = False
    pitch: float = 0.0

    def sides(self) -> Iterator[Blob]:
        """The blob, and its mirror image if it has one."""
        yield self
        if self.mirrored:
            yield replace(self, at=(-self.at[0], self.at[1], self.at[2]))

    def resized(self, factor: float) -> Blob:
        """The blob with radii that many times as long."""
        a, b, c = self.radii
        return replace(self, radii=(a * factor, b * factor, c * factor))

    def distance(self, points: Array) -> Array:
        """Signed distance (mm, negative inside) of points, shape (3, ...), along the ray from the centre."""
        offsets = self._offsets(points)
        level = np.sqrt(self._level(offsets))
        if self.boxy:
            level = np.sqrt(level)
        x, y, z = offsets
        radius = np.sqrt(x * x + y * y + z * z)
        result: Array = radius - radius / np.maximum(level, 1e-3)
        return result

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Whether points, shape (3, ...), lie inside."""
        inside: NDArray[np.bool_] = self._level(self._offsets(points)) < 1
        return inside

    def _offsets(self, points: Array) -> tuple[Array, Array, Array]:
        x, y, z = (points[axis] - np.float32(self.at[axis]) for axis in range(3))
        if self.pitch:
            cosine, sine = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
            y, z = cosine * y + sine * z, cosine * z - sine * y
        return x, y, z

    def _level(self, offsets: Sequence[Array]) -> Array:
        """Sum of the squares (boxy: fourth powers) of the offsets in units of the radii; 1 on the surface."""
        x, y, z = (np.square(u / np.float32(r)) for u, r in zip(offsets, self.radii, strict=True))
        level: Array = x * x + y * y + z * z if self.boxy else x + y + z
        return level


def both_sides(blob: Blob, points: Array) -> Array:
    """Distance to the nearer of a mirrored blob and its mirror image."""
    left, right = (side.distance(points) for side in blob.sides())
    return np.minimum(left, right)


def union(first: Array, second: Array, blend: float) -> Array:
    """Smaller of two distances, rounded where they are within `blend` mm of each other."""
    weight = np.clip(0.5 + 0.5 * (second - first) / blend, 0, 1)
    result: Array = second + weight * (first - second) - blend * weight * (1 - weight)
    return result


def intersection(first: Array, second: Array, blend: float) -> Array:
    """Larger of two distances, rounded as in `union`."""
    return -union(-first, -second, blend)


SCALP = Blob(tissue="muscle", at=(0, 0, 0), radii=(77, 94, 79))
FACE = Blob(tissue="muscle", at=(0, 30, -54), radii=(57, 55, 63), boxy=True, pitch=6)
NECK = Blob(tissue="muscle", at=(0, -22, -130), radii=(56, 58, 90), boxy=True, pitch=-8)
NOSE = Blob(tissue="muscle", at=(0, 88, -44), radii=(12, 20, 14), pitch=-35)

CRANIUM = Blob(tissue="csf", at=(0, 0, 0), radii=(65, 82, 67))
TEMPORAL_FOSSA = Blob(tissue="csf", at=(38, 8, -24), radii=(23, 38, 24), mirrored=True, pitch=-8)
POSTERIOR_FOSSA = Blob(tissue="csf", at=(0, -38, -34), radii=(51, 34, 33))

CEREBRUM = Blob(tissue="white matter", at=(0, 0, 0), radii=(62.5, 79.5, 64.5))
TEMPORAL_LOBE = replace(TEMPORAL_FOSSA, radii=(20.5, 35.5, 21.5))
CALLOSUM = Blob(tissue="white matter", at=(0, -4, 8), radii=(200, 37, 20), pitch=-8)
CEREBELLUM = Blob(tissue="grey matter", at=(0, -41, -36), radii=(47, 28, 25))

# Later entries are drawn over earlier ones.
FACE_PARTS = (
    Blob(tissue="fat", at=(42, 52, -62), radii=(13, 18, 22), mirrored=True),
    Blob(tissue="bone", at=(30, 62, -46), radii=(21, 20, 22), mirrored=True),
    Blob(tissue="bone", at=(0, 62, -66), radii=(27, 25, 7)),
    Blob(tissue="bone", at=(0, 42, -97), radii=(44, 42, 11), pitch=10),
    Blob(tissue="marrow", at=(0, 42, -97), radii=(41, 39, 8), pitch=10),
    Blob(tissue="bone", at=(0, 37, -97), radii=(38, 36, 16), pitch=10),
    Blob(tissue="muscle", at=(0, 36, -95), radii=(36, 34, 22), pitch=10),
    Blob(tissue="fat", at=(0, 40, -104), radii=(22, 24, 5), pitch=10),
    Blob(tissue="air", at=(0, 46, -74), radii=(20, 28, 2.5)),
    Blob(tissue="fat", at=(31, 54, -22), radii=(17, 25, 16), mirrored=True),
    Blob(tissue="muscle", at=(31, 55, -10), radii=(4, 18, 2), mirrored=True, pitch=-8),
    Blob(tissue="muscle", at=(31, 55, -34), radii=(4, 18, 2), mirrored=True, pitch=8),
    Blob(tissue="muscle", at=(21, 53, -22), radii=(2, 18, 4), mirrored=True),
    Blob(tissue="white matter", at=(27, 48, -22), radii=(2.4, 18, 2.4), mirrored=True),
    Blob(tissue="bone", at=(31, 67, -22), radii=(13.2, 13.2, 13.2), mirrored=True),
    Blob(tissue="csf", at=(31, 67, -22), radii=(12, 12, 12), mirrored=True),
    Blob(tissue="muscle", at=(31, 75.5, -22), radii=(4.5, 2.5, 4.5), mirrored=True),
    Blob(tissue="air", at=(28, 62, -50), radii=(12, 14, 14), mirrored=True),
    Blob(tissue="air", at=(0, 58, -46), radii=(13, 34, 15)),
    Blob(tissue="muscle", at=(7, 56, -48), radii=(3, 24, 10), mirrored=True),
    Blob(tissue="bone", at=(0, 60, -46), radii=(1.2, 30, 14)),
    Blob(tissue="air", at=(7, 30, -34), radii=(6.5, 9, 8), mirrored=True),
    Blob(tissue="air", at=(9, 84, 4), radii=(9, 4, 9), mirrored=True),
    Blob(tissue="air", at=(0, 16, -62), radii=(11, 7, 18)),
    Blob(tissue="air", at=(0, 8, -105), radii=(8, 6, 42), boxy=True),
    Blob(tissue="bone", at=(56, -20, -36), radii=(9, 16, 14), mirrored=True),
    Blob(tissue="air", at=(56, -20, -36), radii=(6, 12, 10), mirrored=True),
)

SPINE = (
    Blob(tissue="bone", at=(0, -10, -50), radii=(11, 22, 8), pitch=-35),
    Blob(tissue="marrow", at=(0, -10, -50), radii=(9, 19, 5), pitch=-35),
    Blob(tissue="bone", at=(0, -40, -112), radii=(19, 19, 46), boxy=True),
    Blob(tissue="muscle", at=(19, -52, -112), radii=(16, 15, 60), mirrored=True, boxy=True),
    *(
        Blob(tissue=tissue, at=(0, -12, z), radii=radii, boxy=True)
        for z in (-80, -97, -114, -131)
        for tissue, radii in (("bone", (14.0, 11.0, 7.4)), ("marrow", (11.5, 9.0, 6.0)))
    ),
    Blob(tissue="csf", at=(0, -32, -104), radii=(9.5, 8, 48), boxy=True),
    Blob(tissue="white matter", at=(0, -31, -98), radii=(5.5, 4.5, 56), boxy=True),
)

DEEP_PARTS = (
    Blob(tissue="white matter", at=(10, 2, 2), radii=(24, 36, 18), mirrored=True),
    Blob(tissue="deep grey matter", at=(25, 4, 1), radii=(5.5, 17, 10), mirrored=True),
    Blob(tissue="deep grey matter", at=(10, -12, 3), radii=(9, 15, 9), mirrored=True),
    Blob(tissue="deep grey matter", at=(14, 20, 10), radii=(6, 10, 9), mirrored=True),
    Blob(tissue="deep grey matter", at=(17, -2, 16), radii=(4, 18, 5), mirrored=True),
    Blob(tissue="grey matter", at=(26, -12, -24), radii=(6, 16, 6), mirrored=True),
    Blob(tissue="csf", at=(0, 8, -22), radii=(14, 14, 7)),
    Blob(tissue="csf", at=(0, -34, -8), radii=(14, 6, 9)),
    Blob(tissue="white matter", at=(0, -14, -20), radii=(14, 10, 12), pitch=20),
    Blob(tissue="white matter", at=(0, -13, -37), radii=(16, 13, 13)),
    Blob(tissue="white matter", at=(0, -24, -54), radii=(9, 8, 22), pitch=-22),
    Blob(tissue="white matter", at=(15, -28, -37), radii=(14, 13, 7), mirrored=True),
)

VENTRICLES = (
    Blob(tissue="csf", at=(8, 22, 12), radii=(4.5, 13, 7), mirrored=True, pitch=-15),
    Blob(tissue="csf", at=(9, -6, 20), radii=(6, 26, 5.5), mirrored=True, pitch=-4),
    Blob(tissue="csf", at=(19, -36, 10), radii=(7, 14, 8), mirrored=True, pitch=25),
    Blob(tissue="csf", at=(31, -16, -18), radii=(3, 15, 3), mirrored=True),
    Blob(tissue="csf", at=(0, -4, 0), radii=(2.2, 13, 9), pitch=-10),
    Blob(tissue="csf", at=(0, -29, -36), radii=(7, 5, 8)),
)
