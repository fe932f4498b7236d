"""Draw the picture of the README: one T1w phantom of every site, before and after.

    python docs/before_after.py demo/raw demo/derivatives

after the commands of the quickstart, which write the two folders. Before, every scan has a grey scale of its
own, up to its 99.5th percentile, as viewers show it; after, all scans share one. The curves are histograms of
the foreground. The heads are simulated: nobody was scanned for the picture.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

PICTURE = Path(__file__).parent / "images" / "before_after.png"
SLICE_MM = 8.0
#: Title, names of files, white (None: the 99.5th percentile of the scan itself) and label of the histograms.
BEFORE = ("before", "_T1w.nii*", None, "intensity before / 99.5th percentile")
AFTER = ("after", "_desc-harmonized_T1w.nii.gz", 1000.0, "intensity after / 1000")
#: Room above white, so that what is brightest can be told from it.
HEADROOM = 1.2


def main() -> None:
    """Read one scan per site from both folders and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("raw", type=Path, help="the phantom dataset")
    parser.add_argument("derivatives", type=Path, help="its harmonized scans")
    options = parser.parse_args()
    sites = first_participants(options.raw)
    figure = Figure(figsize=(12.5, 5.2), layout="constrained", facecolor="white")
    axes = figure.subplots(2, len(sites) + 1, width_ratios=[1] * len(sites) + [1.5])
    for row, folder, (title, pattern, white, label) in zip(
        axes, (options.raw, options.derivatives), (BEFORE, AFTER), strict=True
    ):
        images = {site: read(folder, participant, pattern) for site, participant in sites.items()}
        draw_row(row, images, white)
        row[0].set_ylabel(title, fontsize=14)
        row[-1].set_xlabel(label)
    axes[0, -1].legend(frameon=False, fontsize=8)
    for axis, site in zip(axes[0], sites, strict=False):
        axis.set_title(site)
    figure.savefig(PICTURE, dpi=80)


def first_participants(dataset: Path) -> dict[str, str]:
    """The first participant of every site, by site."""
    with (dataset / "participants.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    # Later rows win, so the order is turned round twice: the first of a site, sites in their order.
    first = {row["site"]: row["participant_id"] for row in reversed(rows)}
    return dict(sorted(first.items()))


def read(folder: Path, participant: str, pattern: str) -> nib.Nifti1Image:
    """The participant's first T1w scan in the folder, its axes turned to right, anterior, superior."""
    path = min((folder / participant).rglob(f"{participant}*{pattern}"))
    return nib.as_closest_canonical(nib.load(path))


def draw_row(axes: Sequence[Axes], images: dict[str, nib.Nifti1Image], white: float | None) -> None:
    """An axial slice of every scan, and the histograms of their foregrounds."""
    *slices, histograms = axes
    for axis, (site, image) in zip(slices, images.items(), strict=True):
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        voxels /= white or np.percentile(voxels, 99.5)
        plane, extent = axial_slice(voxels, image.affine)
        axis.imshow(plane, cmap="gray", vmin=0, vmax=HEADROOM, origin="lower", extent=extent)
        axis.set(xticks=[], yticks=[], xlim=(-90, 90), ylim=(-115, 95), facecolor="black")
        foreground = voxels[voxels > 0.1]
        histograms.hist(foreground, bins=120, range=(0, HEADROOM), density=True, histtype="step", label=site)
    histograms.set(yticks=[], xlim=(0, HEADROOM))
    histograms.spines[["left", "top", "right"]].set_visible(False)


def axial_slice(
    voxels: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
    """The slice nearest to `SLICE_MM`, rows from posterior to anterior, and its edges in mm."""
    steps, origin = np.diag(affine)[:3], affine[:3, 3]
    index = int(np.clip(round((SLICE_MM - origin[2]) / steps[2]), 0, voxels.shape[2] - 1))
    low = origin[:2] - steps[:2] / 2
    high = low + steps[:2] * voxels.shape[:2]
    return voxels[:, :, index].T, (low[0], high[0], low[1], high[1])


if __name__ == "__main__":
    main()
