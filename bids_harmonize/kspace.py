"""Alterations in the frequency domain: the same anatomy in another contrast, shading and sharpness.

Each alteration is a frozen object with numbers only. `sample` draws one, `apply` changes a spectrum by it;
drawn once, it can be stored as JSON and replayed. Spectra are half spectra (`scipy.fft.rfftn`), so that the
image they belong to is real by construction; frequencies are in cycles/mm, whatever the voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


@dataclass(frozen=True)
class KSpace:
    """The half spectrum of a real volume.

    Parameters
    ----------
    values
        ``rfftn`` of the volume, complex64.
    shape
        Shape of the volume.
    zooms
        Voxel size, mm.
    """

    values: Spectrum
    shape: tuple[int, ...]
    zooms: tuple[float, ...]

    @classmethod
    def of(cls, volume: Volume, zooms: Sequence[float]) -> KSpace:
        """Transform a volume."""
        values = scipy.fft.rfftn(volume.astype(np.float32, copy=False), workers=-1)
        return cls(values, volume.shape, tuple(zooms))

    def volume(self) -> Volume:
        """Transform back; negative values, which a magnitude image cannot have, become 0."""
        back = scipy.fft.irfftn(self.values, s=self.shape, workers=-1)
        return np.maximum(back, 0).astype(np.float32, copy=False)

    def radius(self) -> NDArray[np.float32]:
        """Distance of every coefficient from the centre of k-space, cycles/mm."""
        *full, last = zip(self.shape, self.zooms, strict=True)
        axes = [scipy.fft.fftfreq(n, zoom) for n, zoom in full] + [scipy.fft.rfftfreq(last[0], last[1])]
        squares = [np.square(axis, dtype=np.float32) for axis in map(np.float32, axes)]
        total = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :]
        return np.sqrt(total)

    def times(self, factor: NDArray[np.float32] | Spectrum) -> KSpace:
        """Multiply every coefficient."""
        return KSpace((self.values * factor).astype(np.complex64, copy=False), self.shape, self.zooms)


class Alteration(Protocol):
    """Anything that changes a spectrum by stored numbers."""

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Draw one; `strength` 0 changes next to nothing."""
        ...

    def apply(self, k_space: KSpace) -> KSpace:
        """The altered spectrum; the input is left alone."""
        ...


def centre_window(radius: NDArray[np.float32], cutoff: float) -> NDArray[np.float32]:
    """1 at the centre of k-space, falling smoothly to 0 at `cutoff` (cycles/mm): a raised cosine."""
    return (0.5 + 0.5 * np.cos(np.pi * np.minimum(radius / cutoff, 1))).astype(np.float32)


@dataclass(frozen=True)
class RadialGain:
    """A smooth gain that depends on the distance from the centre; phase untouched."""

    log_gains: tuple[float, ...]
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Gains of up to about ±30 % below 0.02 to 0.15 cycles/mm, and none beyond."""
        return cls(tuple((rng.normal(0, 0.15, 4) * strength).tolist()), float(rng.uniform(0.02, 0.15)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply by the gain."""
        radius = k_space.radius()
        knots = np.linspace(0, self.cutoff, len(self.log_gains) + 1)
        gain = np.exp(np.interp(radius, knots, [*self.log_gains, 0.0]))
        return k_space.times(gain.astype(np.float32))


@dataclass(frozen=True)
class CentrePerturbation:
    """Random complex factors on the coefficients near the centre: amplitude and phase."""

    seed: int
    strength: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Factors 1 + up to 0.2 (complex normal) below 0.01 to 0.04 cycles/mm."""
        seed = int(rng.integers(2**31))
        return cls(seed, float(rng.uniform(0.03, 0.2)) * strength, float(rng.uniform(0.01, 0.04)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply; the inverse transform to a real image keeps the Hermitian part."""
        radius = k_space.radius()
        near = (radius < self.cutoff) & (radius > 0)
        rng = np.random.default_rng(self.seed)
        noise = rng.normal(size=(2, int(near.sum())))
        factor = np.ones(radius.shape, dtype=np.complex64)
        window = centre_window(radius[near], self.cutoff)
        factor[near] += self.strength * window * (noise[0] + 1j * noise[1])
        return k_space.times(factor)


@dataclass(frozen=True)
class MagnitudePower:
    """Magnitudes near the centre raised to a power; phase untouched."""

    power: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Powers of 1 ± 0.05 (standard deviation; at most ± 0.12) within 0.02 to 0.15 cycles/mm."""
        power = 1 + float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)) * strength
        return cls(power, float(rng.uniform(0.02, 0.15)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Magnitudes relative to those at the cutoff, so that the rim of the region stays continuous."""
        radius = k_space.radius()
        near = radius < self.cutoff
        magnitude = np.abs(k_space.values[near])
        rim = radius[near] > 0.8 * self.cutoff
        level = float(magnitude[rim].mean()) if rim.any() else float(magnitude.mean())
        relative = np.maximum(magnitude / max(level, 1e-12), 1e-3)
        factor = np.ones(radius.shape, dtype=np.float32)
        change = relative ** (self.power - 1) - 1
        factor[near] += centre_window(radius[near], self.cutoff) * change
        return k_space.times(factor)


@dataclass(frozen=True)
class LowBand:
    """The low-frequency band from another spectrum: a tone-mapped copy of the scan, or another scan.

    The other spectrum is given when it is applied; the numbers say how much of it is taken.
    """

    weight: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, largest_cutoff: float = 0.3) -> Self:
        """At least 40 % of a band between 0.02 and `largest_cutoff` cycles/mm wide."""
        cutoff = float(np.exp(rng.uniform(np.log(0.02), np.log(largest_cutoff))))
        return cls(float(rng.uniform(0.4, 1.0)), cutoff)

    def apply(self, k_space: KSpace, other: KSpace) -> KSpace:
        """Blend the two spectra of the same grid."""
        share = self.weight * centre_window(k_space.radius(), self.cutoff)
        values = k_space.values + share * (other.values - k_space.values)
        return KSpace(values.astype(np.complex64, copy=False), k_space.shape, k_space.zooms)


@dataclass(frozen=True)
class Apodization:
    """Lower resolution: a Gaussian over k-space, or its outer part cut off, which rings (Gibbs)."""

    full_width_mm: float
    kept_share: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Blur of up to 1.5 mm, and in one of three cases a sharp cut at 60 to 100 % of the radius."""
        cut = float(rng.uniform(0.6, 1.0)) if rng.random() < 1 / 3 else 1.0
        return cls(float(rng.uniform(0, 1.5)) * strength, cut)

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply by the Gaussian and the cut."""
        radius = k_space.radius()
        sigma_mm = self.full_width_mm / 2.355
        gain = np.exp(-2 * (np.pi * sigma_mm * radius) ** 2).astype(np.float32)
        if self.kept_share < 1:
            limit = self.kept_share * 0.5 / max(k_space.zooms)
            gain *= radius <= max(limit, 0.05)
        return k_space.times(gain)


@dataclass(frozen=True)
class SmoothField:
    """A smooth multiplicative field (receive coils): in k-space a convolution with a few coefficients.

    Applied in the image, where that convolution is one multiplication.
    """

    log_amplitudes: tuple[tuple[int, int, int, float, float], ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Five cosines of at most one period along each axis, together about ±25 %."""
        terms = []
        for _ in range(5):
            x, y, z = (int(n) for n in rng.integers(0, 3, 3))
            terms.append((x, y, z, float(rng.normal(0, 0.12)) * strength, float(rng.uniform(0, 2 * np.pi))))
        return cls(tuple(terms))

    def field(self, shape: Sequence[int]) -> Volume:
        """The field on a grid of `shape`, 1 where nothing changes."""
        total = np.zeros(tuple(shape), dtype=np.float32)
        for x, y, z, amplitude, phase in self.log_amplitudes:
            # Half periods: the field need not come back to itself at the opposite face.
            waves = [
                np.exp(1j * np.pi * k * np.linspace(0, 1, n)) for k, n in zip((x, y, z), shape, strict=True)
            ]
            product = waves[0][:, None, None] * waves[1][:, None] * waves[2] * np.exp(1j * phase)
            total += (amplitude * product.real).astype(np.float32)
        return np.exp(total)

    def apply_to_image(self, volume: Volume) -> Volume:
        """Multiply the image by the field."""
        return volume * self.field(volume.shape)


@dataclass(frozen=True)
class Noise:
    """Complex Gaussian noise in k-space; the magnitude image gets Rician noise."""

    seed: int
    relative_sigma: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Standard deviation of up to 5 % of the image's bright value."""
        return cls(int(rng.integers(2**31)), float(rng.uniform(0, 0.05)) * strength)

    def apply_to_image(self, volume: Volume) -> Volume:
        """Add noise; white noise has the same law in k-space and in the image, so it is added there."""
        sigma = np.float32(self.relative_sigma * np.percentile(volume[::2, ::2, ::2], 99))
        rng = np.random.default_rng(self.seed)
        real, imaginary = rng.standard_normal((2, *volume.shape), dtype=np.float32) * sigma
        return np.hypot(volume + real, imaginary)
