"""Where tissues lie in heads: the mean of label maps, placed onto one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

# The first is what lies outside; the next three make up a brain.
CLASSES = ("air", "CSF", "grey matter", "white matter", "soft tissue", "bone")
BRAIN = slice(1, 4)
CELL_MM = 4.0
BUNDLED = Path(__file__).with_name("atlas.safetensors")
# Shares are stored in as many steps.
STEPS = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """The share of every class in cells of 4 mm; axes are right, anterior, superior.

    Attributes
    ----------
    shares
        ``(classes, x, y, z)``, float32, a sum of 1 over the classes.
    origin
        Index along each axis, perhaps between two cells, of the place from which others are measured.
    """

    shares: Tensor
    origin: tuple[float, float, float]

    @classmethod
    @cache
    def bundled(cls) -> Self:
        """The atlas that comes with the package; `docs/method.md` says what it was made of."""
        with safe_open(BUNDLED, framework="pt") as file:
            x, y, z = json.loads(file.metadata()["origin"])
            shares = file.get_tensor("shares").float()
        return cls(shares=shares / shares.sum(0), origin=(x, y, z))

    def stored(self) -> bytes:
        """The content of the file that `bundled` reads."""
        rounded = (self.shares * STEPS).round().to(torch.uint8)
        return save({"shares": rounded}, metadata={"origin": json.dumps(self.origin)})

    def at(self, places: Tensor) -> Tensor:
        """Shares ``(classes, n)`` at places ``(n, 3)`` in mm from the origin; the edges go on outside."""
        shape: Sequence[int] = self.shares.shape[1:]
        index = places / CELL_MM + torch.tensor(self.origin)
        # Coordinates from -1 to 1, the last axis first.
        relative = (index + 0.5) * 2 / torch.tensor(shape) - 1
        grid = relative.flip(-1).view(1, 1, 1, -1, 3)
        found = F.grid_sample(self.shares[None], grid, padding_mode="border", align_corners=False)
        return found[0, :, 0, 0]
