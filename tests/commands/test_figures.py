"""Figures are drawn while the images of a scan are in memory, and are the same as from files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pytest

from bids_harmonize.commands import run_context
from bids_harmonize.report.participant import build
from tests.helpers.toy_datasets import (
    counts,
    files,
    harmonize,
    load,
    sha256,
    write_scan,
)
from tests.helpers.toy_heads import ALWAYS, NEVER

pytestmark = pytest.mark.process

SCAN = "sub-01_T1w.nii.gz"
SKIP = ("--out-of-distribution", "skip")


@pytest.mark.parametrize("logit", [ALWAYS, NEVER])
@pytest.mark.parametrize("transform", [(), ("--save-transform",)])
def test_figures_from_memory_are_those_from_files(
    dataset: Path,
    tmp_path: Path,
    model,
    monkeypatch: pytest.MonkeyPatch,
    logit: float,
    transform: tuple[str, ...],
) -> None:
    image = load(dataset / "sub-01/anat" / SCAN)
    for name, axes in (("sub-02_T1w", "LPI"), ("sub-03_T1w", "SAL")):
        turned = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
        )
        write_scan(dataset, f"{name}.nii.gz", image.as_reoriented(turned))
    output = tmp_path / "out"
    call = (dataset, output, "participant", "--model", model(logit), *SKIP)
    with monkeypatch.context() as patch:
        # No image is read for the pages.
        patch.delattr(build, "load_scan")
        assert harmonize(*call, *transform).code == 0
    drawn = {name: sha256(output / name) for name in files(output) if not name.startswith("logs")}
    figures = {name for name in drawn if "/figures/" in name}
    assert {name.split("/")[0] for name in figures} == {"sub-01", "sub-02", "sub-03"}
    for name in figures:
        (output / name).unlink()
    assert harmonize(*call, "--reports-only").code == 0
    assert {name: sha256(output / name) for name in drawn} == drawn


def test_figures_that_cannot_be_drawn_from_memory_are_left_to_the_page(
    dataset: Path, tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(run_context, "draw_scan_figures", out_of_memory)
    result = harmonize(dataset, tmp_path / "out", "participant", "--model", model(NEVER))
    assert counts(result) == {"harmonized": 1}
    assert (result.code, "No figures" in (tmp_path / "out/sub-01.html").read_text()) == (0, False)
    assert "sub-01/figures/sub-01_desc-histogram_T1w.svg" in files(tmp_path / "out")
