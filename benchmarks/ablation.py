"""What each family of alterations brings: the same short training with some of them, side by side.

All on development data: heads 09 and 10, the real sites, and two people of the reference group who are left
out here besides the one who always is. What it shows decides which families stay in `pairs.Recipe`.

    python -m benchmarks.ablation OUT [--steps N] [--variants NAME ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import Data
from benchmarks.methods import Method, make_methods
from benchmarks.rows import Row
from benchmarks.scans import Scan, Volume, shared_folder
from benchmarks.splits import TRAINING_HEADS
from benchmarks.tiers import agreement, distribution, left_out
from bids_harmonize.grid import Cells, slice_volume, splat
from bids_harmonize.heads import Head
from bids_harmonize.image import intensity_scale
from bids_harmonize.learn import SIMULATED_VOXELS
from bids_harmonize.network import CurveNetwork
from bids_harmonize.pairs import (
    K_SPACE,
    SCANNER,
    TONES,
    Example,
    Recipe,
    SimulatedHead,
    Source,
    examples,
    simulated_heads,
)
from bids_harmonize.reference import measure_scan
from bids_harmonize.training import Schedule, train

#: Left out of the group here, so that ordinary people are judged too. Chosen by their numbers alone.
SET_ASIDE = ("sub-03", "sub-10")
ARTEFACTS = {"Spikes": 0.15, "PhaseError": 0.15}
#: Every variant also has receive fields, noise, skull-stripping and cropping.
VARIANTS: Mapping[str, Recipe] = {
    "k-space alone": Recipe(frequencies={**K_SPACE, **SCANNER}, simulated=0),
    "tone curves alone": Recipe(frequencies={**TONES, **SCANNER}, simulated=0),
    "k-space, tone curves": Recipe(frequencies={**K_SPACE, **TONES, **SCANNER}, simulated=0),
    "and signal equations": Recipe(simulated=0),
    "and simulated heads": Recipe(),
    "and spikes, phase errors": Recipe(frequencies={**Recipe().frequencies, **ARTEFACTS}),
}
#: Figures that the table shows, by their tier, and their decimals.
SHOWN: Mapping[tuple[str, str], int] = {
    (agreement.TIER, "agreement inside the brain, dB"): 1,
    (agreement.TIER, "grey/white ratio, CoV"): 3,
    (agreement.TIER, "white-grey contrast over range"): 3,
    (left_out.TIER, "unaltered: output to original, dB"): 1,
    (left_out.TIER, "power: output to original, dB"): 1,
    (left_out.TIER, "receive field: output to original, dB"): 1,
    (distribution.TIER, f"{distribution.AS_IT_IS}, mean of new sites"): 3,
}


@dataclass(frozen=True, kw_only=True)
class DevelopmentData(Data):
    """The data to choose by, with other people left out."""

    @cached_property
    def _people(self) -> list[Scan]:
        return [scan for scan in self.real.reference if scan.person in SET_ASIDE]

    @property
    def left_out(self) -> list[Scan]:
        """Those set aside here."""
        return self._people

    @property
    def reference(self) -> list[Scan]:
        """The rest of the group."""
        return [scan for scan in self.real.reference if scan.person not in SET_ASIDE]


def sources(data: Data) -> tuple[list[Example], list[SimulatedHead]]:
    """Reference scans and simulated heads, as the level `train` makes them."""
    group = [measure_scan(scan.name, scan.volume, scan.zooms, data.modality) for scan in data.reference]
    scans = [example for scan in group for example in examples(scan, data.modality)]
    labels = data.shared / "data" / "labels"
    heads = [
        Head.read(labels / f"{name}_dseg.nii.gz", factors)
        for name in TRAINING_HEADS
        for factors in SIMULATED_VOXELS[data.modality]
    ]
    return scans, simulated_heads(heads, scans, data.modality)


def trained(
    recipe: Recipe,
    scans: Sequence[Example],
    heads: Sequence[SimulatedHead],
    folder: Path,
    steps: int,
) -> CurveNetwork:
    """A network trained from nothing by a recipe."""
    pool: list[Source] = [*scans, *(heads if recipe.simulated else ())]
    return train(pool, [], folder, Schedule(steps=steps), print, recipe=recipe)[0]


def as_method(name: str, network: CurveNetwork, folder: Path) -> Method:
    """The network as a method of the benchmark."""

    def apply(scan: Scan) -> Volume:
        cells = Cells.of(scan.volume.shape, scan.zooms)
        scaled = torch.from_numpy(scan.volume / np.float32(intensity_scale(scan.volume)))
        with torch.no_grad():
            curves = network(splat(scaled, cells)[None])[0]
            return np.asarray(1000 * slice_volume(curves, cells, scaled).numpy())

    return Method(name=name, function=apply, folder=folder)


def figures(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows that the table shows."""
    rows = [row for tier in (agreement, left_out, distribution) for row in tier.run(methods, data)]
    return [row for row in rows if (row.tier, row.figure) in SHOWN]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per variant, mean ± standard deviation."""
    cells = {(row.method, row.tier, row.figure): row for row in rows}
    head = ["variant", *(f"{tier}: {figure}" for tier, figure in SHOWN)]
    lines = [head, ["---"] * len(head)]
    for method in dict.fromkeys(row.method for row in rows):
        shown = [(cells[method, *key], decimals) for key, decimals in SHOWN.items()]
        lines.append([method, *(f"{row.value:.{d}f} ± {row.spread:.{d}f}" for row, d in shown)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Train every variant (one killed goes on where it was), measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for weights, ablation.md and .json")
    parser.add_argument("--modality", choices=("T1w", "T2w"), default="T1w")
    parser.add_argument("--steps", type=int, default=500, help="of every training (default: 500)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = DevelopmentData(shared=shared_folder(), modality=given.modality, development=True)
    scans, heads = sources(data)
    with tempfile.TemporaryDirectory() as folder:
        volumes = Path(folder)
        methods = make_methods(
            ["percentile", "Nyúl"], given.modality, data.reference, given.modality, volumes
        )
        for name in given.variants:
            print(name, flush=True)
            weights = given.out / f"{given.modality} {name}".replace(" ", "_").replace(",", "")
            network = trained(VARIANTS[name], scans, heads, weights, given.steps)
            methods.append(as_method(name, network, volumes))
        rows = figures(methods, data)
    text = table(rows)
    (given.out / f"ablation_{given.modality}.md").write_text(text + "\n", encoding="utf-8")
    record = {"Steps": given.steps, "Rows": [asdict(row) for row in rows]}
    (given.out / f"ablation_{given.modality}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
