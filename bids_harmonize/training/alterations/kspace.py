"""Alterations in the frequency domain: the same anatomy in another contrast, shading and sharpness.

Each alteration is a frozen object with numbers only, from which it can be made again. `sample` draws one,
`apply` changes a spectrum by it. Spectra are half spectra (`scipy.fft.rfftn`), so that the image they belong
to is real by construction; frequencies are in cycles/mm, whatever the voxel size. All families are in this
one file, because each of them uses `KSpace` and its helpers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Protocol, Self

import numpy as np
import scipy.special
from numpy.typing import NDArray

from bids_harmonize.imaging.types import Volume

Spectrum = NDArray[np.complex64]

# Slices this much thicker than the coarser side of their pixels are taken for slices that were acquired one
# by one. A little less than 2, so that the rounding of 2 x 2 x 4 mm in a header decides nothing.
THICK_SLICE = 1.9


def acquired_axes(zooms: Sequence[float]) -> tuple[int, ...]:
    """The axes along which the scanner encoded frequencies: all, or those in plane if slices are thick."""
    *_, second, thickest = np.argsort(zooms, kind="stable").tolist()
    thick = zooms[thickest] > THICK_SLICE * zooms[second]
    return tuple(axis for axis in range(len(zooms)) if not (thick and axis == thickest))


@dataclass(frozen=True)
class KSpace:
    """The half spectrum of a real volume: in 3-D, or of each thick slice in 2-D.

    Parameters
    ----------
    values
        ``rfftn`` of the volume along `axes`, complex64; the last of `axes` is the halved one.
    shape
        Shape of the volume.
    zooms
        Voxel size, mm.
    axes
        The axes that are frequencies; another one counts slices.
    """

    values: Spectrum
    shape: tuple[int, ...]
    zooms: tuple[float, ...]
    axes: tuple[int, ...]

    @classmethod
    def of(cls, volume: Volume, zooms: Sequence[float]) -> KSpace:
        """Transform a volume along its `acquired_axes`."""
        axes = acquired_axes(zooms)
        values = scipy.fft.rfftn(volume.astype(np.float32, copy=False), axes=axes, workers=-1)
        return cls(values, volume.shape, tuple(zooms), axes)

    def volume(self) -> Volume:
        """Transform back; negative values, which a magnitude image cannot have, become 0."""
        lengths = [self.shape[axis] for axis in self.axes]
        back = scipy.fft.irfftn(self.values, s=lengths, axes=self.axes, workers=-1)
        return np.maximum(back, 0).astype(np.float32, copy=False)

    def radius(self) -> NDArray[np.float32]:
        """Distance of every coefficient from the centre of k-space, cycles/mm, read-only.

        The same for all slices: where the transform is in plane, the axis of slices has length 1.
        """
        return _radius(self.shape, self.zooms, self.axes)

    def times(self, factor: NDArray[np.float32] | Spectrum) -> KSpace:
        """Multiply every coefficient; a factor of the shape of `radius` is the same for all slices."""
        return replace(self, values=(self.values * factor).astype(np.complex64, copy=False))

    def hermitian(self) -> KSpace:
        """What belongs to a real volume: pairs that the half spectrum holds both of become conjugate."""
        full, half = self.axes[:-1], self.axes[-1]
        n = self.shape[half]
        values = self.values.copy()
        for index in (0, n // 2) if n % 2 == 0 else (0,):
            plane = tuple(
                slice(index, index + 1) if axis == half else slice(None) for axis in range(values.ndim)
            )
            mirrored = np.roll(np.flip(values[plane], full), 1, full)
            values[plane] = (values[plane] + mirrored.conj()) / 2
        return replace(self, values=values)


@lru_cache(maxsize=2)
def _radius(shape: tuple[int, ...], zooms: tuple[float, ...], axes: tuple[int, ...]) -> NDArray[np.float32]:
    total = np.zeros((1,) * len(shape), dtype=np.float32)
    for axis in axes:
        frequencies = scipy.fft.rfftfreq if axis == axes[-1] else scipy.fft.fftfreq
        line = frequencies(shape[axis], zooms[axis]).astype(np.float32)
        total = total + np.square(_along(line, axis, len(shape)))
    radius = np.sqrt(total)
    radius.flags.writeable = False
    return radius


def _along(line: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """Values of one axis, ready to be broadcast over the others."""
    return line.reshape([-1 if other == axis else 1 for other in range(dimensions)])


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


def _one_except(where: NDArray[np.bool_], factor: NDArray[Any]) -> NDArray[Any]:
    total = np.ones(where.shape, dtype=np.result_type(factor.dtype, np.float32))
    total[where] = factor
    return total


@dataclass(frozen=True)
class RadialGain:
    """A smooth gain that depends on the distance from the centre; phase untouched.

    At full strength the energy changes by a factor of at most exp(±0.8).
    """

    log_gains: tuple[float, ...]
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Gains of up to ±33 % (15 % typically) below 0.02 to 0.15 cycles/mm, and none beyond."""
        log_gains = np.clip(rng.normal(0, 0.15, 4), -0.4, 0.4) * strength
        return cls(tuple(log_gains.tolist()), float(rng.uniform(0.02, 0.15)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply by the gain."""
        radius = k_space.radius()
        near = radius < self.cutoff
        knots = np.linspace(0, self.cutoff, len(self.log_gains) + 1)
        gain = np.exp(np.interp(radius[near], knots, [*self.log_gains, 0.0]))
        return k_space.times(_one_except(near, gain.astype(np.float32)))


@dataclass(frozen=True)
class CentrePerturbation:
    """Random complex factors on the coefficients near the centre: amplitude and phase.

    Slices acquired one by one share the gradients and the receiver that err, so they share the factors; the
    brightness does not jump from one slice to the next. At full strength the energy changes by a factor
    between 1/12 and 3.
    """

    seed: int
    strength: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Factors 1 + up to 0.2 (complex normal, cut at 2.5) below 0.01 to 0.04 cycles/mm."""
        seed = int(rng.integers(2**31))
        return cls(seed, float(rng.uniform(0.03, 0.2)) * strength, float(rng.uniform(0.01, 0.04)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply; factors of a pair are conjugate, so that the image stays real."""
        radius = k_space.radius()
        near = (radius < self.cutoff) & (radius > 0)
        normal = np.random.default_rng(self.seed).normal(size=(2, int(near.sum()))).clip(-2.5, 2.5)
        noise = (normal[0] + 1j * normal[1]).astype(np.complex64)
        factor = 1 + np.float32(self.strength) * centre_window(radius[near], self.cutoff) * noise
        factors = replace(k_space, values=_one_except(near, factor)).hermitian()
        return k_space.times(factors.values)


@dataclass(frozen=True)
class MagnitudePower:
    """Magnitudes near the centre raised to a power; phase untouched.

    At full strength a magnitude changes by a factor of 1000**±0.12 at most, the energy by its square.
    """

    power: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Powers of 1 ± 0.05 (standard deviation; at most ± 0.12) within 0.02 to 0.15 cycles/mm."""
        power = 1 + float(np.clip(rng.normal(0, 0.05), -0.12, 0.12)) * strength
        return cls(power, float(rng.uniform(0.02, 0.15)))

    def apply(self, k_space: KSpace) -> KSpace:
        """Magnitudes relative to those at the cutoff, so that the rim of the region stays continuous.

        One level for all slices: a level of each slice would make their brightness jump.
        """
        radius = np.broadcast_to(k_space.radius(), k_space.values.shape)
        near = radius < self.cutoff
        distance, magnitude = radius[near], np.abs(k_space.values[near])
        rim = distance > 0.8 * self.cutoff
        level = float(magnitude[rim].mean()) if rim.any() else float(magnitude.mean())
        relative = np.clip(magnitude / max(level, 1e-12), 1e-3, 1e3)
        change = relative ** np.float32(self.power - 1) - 1
        return k_space.times(_one_except(near, 1 + centre_window(distance, self.cutoff) * change))


@dataclass(frozen=True)
class LowBand:
    """The low-frequency band from another spectrum: a tone-mapped copy of the scan, or another scan.

    The other spectrum is given when it is applied; the numbers say how much of it is taken. No coefficient
    grows beyond the larger one of the two.
    """

    weight: float
    cutoff: float

    @classmethod
    def sample(cls, rng: np.random.Generator, largest_cutoff: float = 0.3) -> Self:
        """At least 40 % of a band between 0.02 and `largest_cutoff` cycles/mm wide."""
        cutoff = float(np.exp(rng.uniform(np.log(0.02), np.log(largest_cutoff))))
        return cls(float(rng.uniform(0.4, 1.0)), cutoff)

    def apply(self, k_space: KSpace, other: KSpace) -> KSpace:
        """Blend the two spectra of volumes of the same shape."""
        if other.axes != k_space.axes:
            other = KSpace.of(other.volume(), k_space.zooms)
        share = self.weight * centre_window(k_space.radius(), self.cutoff)
        values = k_space.values + share * (other.values - k_space.values)
        return replace(k_space, values=values.astype(np.complex64, copy=False))


@dataclass(frozen=True)
class Apodization:
    """Lower resolution: a Gaussian over k-space, or its outer part cut off, which rings (Gibbs).

    Only takes energy away, and none from the mean of the volume.
    """

    full_width_mm: float
    kept_share: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Blur of up to 1.5 mm, and in one of three cases a sharp cut at 60 to 100 % of the radius."""
        lost = float(rng.uniform(0, 0.4)) if rng.random() < 1 / 3 else 0.0
        return cls(float(rng.uniform(0, 1.5)) * strength, 1 - lost * strength)

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply by the Gaussian and the cut."""
        radius = k_space.radius()
        sigma_mm = self.full_width_mm / 2.355
        gain = np.exp(np.float32(-2 * (np.pi * sigma_mm) ** 2) * radius**2)
        if self.kept_share < 1:
            limit = self.kept_share * 0.5 / max(k_space.zooms[axis] for axis in k_space.axes)
            gain *= radius <= max(limit, 0.05)
        return k_space.times(gain)


@dataclass(frozen=True)
class Spikes:
    """A few spurious coefficients far from the centre: faint stripes across the volume, or one slice of it.

    Each spike has a place, as shares of the spectrum along its axes, an amplitude and a phase. The amplitude
    is that of the stripes over the mean of the volume (of the brightest slice). At full strength the energy
    changes by a factor of at most 1.36**2.
    """

    spikes: tuple[tuple[float, float, float, float, float], ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """One to three spikes, with stripes of 2 to 12 % of the mean each."""
        spikes = []
        for _ in range(int(rng.integers(1, 4))):
            # Far from the centre, which is at share 0 and, on axes that are not halved, at 1.
            x, y, z = rng.uniform(0.15, 0.85, 3).tolist()
            spikes.append(
                (x, y, z, float(rng.uniform(0.02, 0.12)) * strength, float(rng.uniform(0, 2 * np.pi)))
            )
        return cls(tuple(spikes))

    def apply(self, k_space: KSpace) -> KSpace:
        """Add them to the spectrum; in plane, each disturbs one slice only, as in the scanner."""
        centre = tuple(0 if axis in k_space.axes else slice(None) for axis in range(k_space.values.ndim))
        total = np.abs(k_space.values[centre]).max()
        added = np.zeros_like(k_space.values)
        for *place, amplitude, phase in self.spikes:
            index = tuple(int(share * n) for share, n in zip(place, added.shape, strict=True))
            # The other half of the spectrum holds the other half of the wave.
            added[index] += 0.5 * amplitude * total * np.exp(1j * phase)
        return replace(k_space, values=k_space.values + replace(k_space, values=added).hermitian().values)


@dataclass(frozen=True)
class PhaseError:
    """A phase that swings from line to line (flow, breathing): a faint ghost along the phase encoding.

    The ghost is displaced by `shift` of the field of view and about amplitude / 2 (radian) as bright as the
    head. The image becomes complex, and its magnitude is taken, so the energy stays the same.
    """

    direction: float
    shift: float
    amplitude: float
    phase: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Swings of 0.02 to 0.1 rad; ghosts at 0.2 to 0.5 of the field of view."""
        direction, shift = float(rng.random()), float(rng.uniform(0.2, 0.5))
        return cls(
            direction, shift, float(rng.uniform(0.02, 0.1)) * strength, float(rng.uniform(0, 2 * np.pi))
        )

    def apply(self, k_space: KSpace) -> KSpace:
        """Multiply each line by its phase; `direction`, a share, chooses among the acquired axes."""
        axis = k_space.axes[int(self.direction * len(k_space.axes))]
        n = k_space.shape[axis]
        swing = self.amplitude * np.sin(2 * np.pi * self.shift * scipy.fft.fftfreq(n, 1 / n) + self.phase)
        factor = _along(np.exp(1j * swing).astype(np.complex64), axis, len(k_space.shape))
        lines = scipy.fft.fft(k_space.volume(), axis=axis, workers=-1)
        return KSpace.of(np.abs(scipy.fft.ifft(lines * factor, axis=axis, workers=-1)), k_space.zooms)


@dataclass(frozen=True)
class SmoothField:
    """A smooth multiplicative field (receive coils): in k-space a convolution with a few coefficients.

    Applied in the image, where that convolution is one multiplication; in 3-D also for thick slices, since
    coils do not know of slices. The energy changes by a factor of at most exp(±2 Σ|amplitude|).
    """

    log_amplitudes: tuple[tuple[int, int, int, float, float], ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Five cosines of at most one period along each axis, together about ±25 %, at most exp(±0.8)."""
        amplitudes = rng.normal(0, 0.12, 5)
        amplitudes *= strength * min(1, 0.8 / np.abs(amplitudes).sum())
        periods, phases = rng.integers(0, 3, (5, 3)).tolist(), rng.uniform(0, 2 * np.pi, 5).tolist()
        terms = zip(periods, amplitudes.tolist(), phases, strict=True)
        return cls(tuple((x, y, z, amplitude, phase) for (x, y, z), amplitude, phase in terms))

    def field(self, shape: Sequence[int]) -> Volume:
        """The field on a grid of `shape`, 1 where nothing changes."""
        x, y, z, amplitude, phase = np.array(self.log_amplitudes).T
        # Half periods: the field need not come back to itself at the opposite face.
        in_x, in_y, in_z = (
            np.exp(1j * np.pi * np.outer(np.linspace(0, 1, n), k))
            for k, n in zip((x, y, z), shape, strict=True)
        )
        plane = (in_x * amplitude * np.exp(1j * phase))[:, None] * in_y
        # The real part of a product of complex numbers, as one matrix product of real ones.
        left = np.concatenate([plane.real, -plane.imag], axis=-1, dtype=np.float32)
        right = np.concatenate([in_z.real, in_z.imag], axis=-1, dtype=np.float32)
        total = left @ right.T
        return np.exp(total, out=total)

    def apply_to_image(self, volume: Volume) -> Volume:
        """Multiply the image by the field."""
        return volume * self.field(volume.shape)

    def apply(self, k_space: KSpace) -> KSpace:
        """The spectrum of the image times the field."""
        return KSpace.of(self.apply_to_image(k_space.volume()), k_space.zooms)


@dataclass(frozen=True)
class Noise:
    """Complex Gaussian noise in k-space; the magnitude image gets Rician noise.

    Per voxel it adds an energy of 2 sigma squared on average.
    """

    seed: int
    relative_sigma: float

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Self:
        """Standard deviation of up to 5 % of the image's bright value."""
        return cls(int(rng.integers(2**31)), float(rng.uniform(0, 0.05)) * strength)

    def apply_to_image(self, volume: Volume) -> Volume:
        """Add noise; white noise has the same law in k-space and in the image, so it is added there."""
        sigma = np.float32(self.relative_sigma * np.percentile(volume[::2, ::2, ::2], 99))
        real, imaginary = _white_noise(self.seed, sigma, (2, *volume.shape))
        real += volume
        squares = np.square(real, out=real)
        squares += np.square(imaginary, out=imaginary)
        return np.sqrt(squares, out=squares)

    def apply(self, k_space: KSpace) -> KSpace:
        """The spectrum of the noisy magnitude image."""
        return KSpace.of(self.apply_to_image(k_space.volume()), k_space.zooms)


def _white_noise(seed: int, sigma: np.float32, shape: tuple[int, ...]) -> Volume:
    """Normal numbers of up to ±4.3 sigma, four times as fast as drawing them one by one."""
    draws = np.random.Generator(np.random.SFC64(seed)).bytes(2 * int(np.prod(shape)))
    # "clip" spares the check of bounds, which no 16 bits exceed.
    quantiles = sigma * _normal_quantiles()
    return quantiles.take(np.frombuffer(draws, "<u2"), mode="clip").reshape(shape)


@cache
def _normal_quantiles() -> NDArray[np.float32]:
    return scipy.special.ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)
