"""Types of volumes and masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""True where a voxel belongs to a region, ``(x, y, z)``."""

Volume = NDArray[np.float32]
"""Intensities of a magnitude image, ``(x, y, z)``: finite and not negative."""

Voxels = NDArray[np.float32]
"""Intensities as they are stored in a file: they may hold what a magnitude image cannot."""
