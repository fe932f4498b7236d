"""Every real scan of other sites and of participants scanned twice, before and after, in one picture.

    python -m benchmarks.contact_sheets OUT [--model WEIGHTS]

Before, every scan has a grey scale of its own, up to its 99.5th percentile, as viewers show it; after, all
share one. The first scan is the held-out participant of the reference group, for what is aimed at. The
pictures are for looking at: the licences of some of the scans do not allow to publish them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.data import Data
from benchmarks.methods import ours
from benchmarks.scans import Scan, Volume, shared_folder
from benchmarks.tiers.repeats import read_repeats

#: White of the grey scale that all outputs share, over the median of white matter.
WHITE = {"T1w": 1.3, "T2w": 3.0}
UNIT = 1000.0
#: Where the middle of the brain is cut, along x and along z.
CUTS = (0, 2)
#: Scans side by side, each with its slices.
ACROSS = 4


def real_scans(data: Data) -> list[Scan]:
    """The held-out participant, all sites, and both scans of everybody in `pairs`."""
    repeats = read_repeats(data.pairs, data.modality) if data.pairs else []
    return [*data.held_out, *data.sites, *(scan for one in repeats for scan in (one.first, one.second))]


def draw(scans: Sequence[Scan], outputs: Sequence[Volume], white: float) -> Figure:
    """A figure with two rows, before and after, for every `ACROSS` scans."""
    down = -(-len(scans) // ACROSS)
    columns = ACROSS * len(CUTS)
    figure = Figure(figsize=(2.0 * columns, 4.2 * down), layout="constrained", facecolor="black")
    axes = figure.subplots(2 * down, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (scan, output) in enumerate(zip(scans, outputs, strict=True)):
        row, first = 2 * (number // ACROSS), len(CUTS) * (number % ACROSS)
        place = slice(first, first + len(CUTS))
        _show(list(axes[row, place]), scan, scan.volume, float(np.percentile(scan.volume, 99.5)))
        _show(list(axes[row + 1, place]), scan, output, white)
        axes[row, first].set_title(scan.name, color="white", fontsize=8, loc="left")
    return figure


def _show(axes: Sequence[Axes], scan: Scan, volume: Volume, white: float) -> None:
    """Slices through the middle of the brain, or of the head where no brain was found."""
    inside = scan.brain if scan.brain.any() else scan.head
    middle = [round(where) for where in np.argwhere(inside).mean(axis=0)]
    for axis, cut in zip(axes, CUTS, strict=True):
        across, up = (k for k in range(3) if k != cut)
        plane = np.take(volume, middle[cut], axis=cut).T
        shape = scan.zooms[up] / scan.zooms[across]
        axis.imshow(plane, cmap="gray", origin="lower", vmin=0, vmax=white, aspect=shape)


def main() -> None:
    """Draw a sheet of each modality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for T1w.png and T2w.png")
    parser.add_argument("--modality", nargs="+", choices=WHITE, default=list(WHITE), help="default: both")
    parser.add_argument("--model", help="weights instead of those that come with the package")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shared = shared_folder()
    for modality in options.modality:
        data = Data(shared=shared, modality=modality, pairs=shared / "data" / "pairs")
        scans, harmonize = real_scans(data), ours(options.model or modality)
        figure = draw(scans, [harmonize(scan) for scan in scans], WHITE[modality] * UNIT)
        figure.savefig(options.out / f"{modality}.png", dpi=80)


if __name__ == "__main__":
    main()
