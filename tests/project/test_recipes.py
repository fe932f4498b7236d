"""The recipes of the documentation do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.query import select_runs
from tests.helpers.bids_validation import problems
from tests.helpers.toy_datasets import harmonize, write_dataset, write_scan

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "docs" / "usage" / "recipes.md").read_text(encoding="utf-8")
NAMES = {
    "sub-01_T1w": "sub-01_rec-harmonized_T1w",
    "sub-01_T2w": "sub-01_rec-harmonized_T2w",
    "sub-02_acq-a_rec-norm_run-1_T1w": "sub-02_acq-a_rec-normharmonized_run-1_T1w",
}


def test_harmonized_scans_become_raw_ones(tmp_path: Path) -> None:
    dataset, out, raw = tmp_path / "data", tmp_path / "out", tmp_path / "raw"
    write_dataset(dataset)
    for name in NAMES:
        write_scan(dataset, f"{name}.nii.gz", sidecar={"EchoTime": 0.003})
    assert harmonize(dataset, out, "participant").code == 0
    (code,) = re.findall(r"<!-- rec-code -->\n```python\n(.*?)```", RECIPES, re.DOTALL)
    (tmp_path / "make_raw.py").write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, tmp_path / "make_raw.py", out, raw], check=True)
    runs = select_runs(raw, Filters())
    assert {run.path.name.removesuffix(".nii.gz") for run in runs} == {*NAMES.values()}
    for name, target in NAMES.items():
        image = raw / f"{name.split('_')[0]}/anat/{target}.nii.gz"
        (source,) = out.rglob(f"{name.rsplit('_', 1)[0]}_desc-harmonized_{name.rsplit('_', 1)[1]}.nii.gz")
        assert image.read_bytes() == source.read_bytes()
    assert problems(raw, tmp_path, warnings=False) == []
