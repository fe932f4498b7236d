"""Skips test modules of the benchmarks where their packages are not installed."""

from __future__ import annotations

import pytest

PACKAGES = ("SimpleITK", "intensity_normalization", "skimage", "sklearn", "mirp")


def require_benchmark_extra() -> None:
    """Skip the module that calls this, unless all packages of the extra `benchmark` are there."""
    for name in PACKAGES:
        pytest.importorskip(name, reason="the benchmark extra is not installed")
