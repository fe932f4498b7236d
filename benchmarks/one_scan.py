"""One scan by one method, as its users would do it: read, harmonize, write.

    python -m benchmarks.one_scan METHOD IN OUT [--mask MASK] [--standard FILE] [--threads N] [--device D]

prints the seconds that the inner call alone took, the first in its process, without start, reading and
writing. Each method imports only what it needs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

#: Of N4, as its users shrink before they fit the field.
N4_SHRINK = 4
#: Slices this much thicker than pixels are not shrunk along their axis.
N4_THICK = 3

Given = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it once."""
    given = _parser().parse_args(arguments)
    print(json.dumps({"InnerSeconds": METHODS[given.method](given)}))
    return 0


def _floor(given: Given) -> float:
    """Read, write as float32, and nothing else."""
    import nibabel as nib
    import numpy as np

    def copied() -> None:
        image = nib.Nifti1Image.from_filename(given.source)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        nib.save(nib.Nifti1Image(voxels, image.affine), given.target)

    return _timed(copied)[0]


def _ours(given: Given) -> float:
    import nibabel as nib
    import numpy as np
    import torch

    from bids_harmonize import Model

    torch.set_num_threads(given.threads)
    model = Model.load("T1w", given.device)
    stored = nib.Nifti1Image.from_filename(given.source)
    # Already read, so that reading is no part of the inner call.
    image = nib.Nifti1Image(np.asarray(stored.dataobj, dtype=np.float32), stored.affine, stored.header)
    seconds, result = _timed(lambda: model.harmonize(image))
    nib.save(result.image, given.target)
    return seconds


def _nyul(given: Given) -> float:
    from intensity_normalization import NyulNormalizer
    from intensity_normalization.adapters.io import load_image, save_image

    image, mask = _read(load_image, given)
    normalizer = NyulNormalizer()
    normalizer.load_standard_histogram(str(given.standard))
    seconds, result = _timed(lambda: normalizer.transform(image, mask))
    save_image(result, given.target)
    return seconds


def _fcm(given: Given) -> float:
    from intensity_normalization import FCMNormalizer
    from intensity_normalization.adapters.io import load_image, save_image

    image, mask = _read(load_image, given)
    seconds, result = _timed(lambda: FCMNormalizer().fit_transform(image, mask))
    save_image(result, given.target)
    return seconds


def _read(load: Callable[[str], Any], given: Given) -> tuple[Any, Any]:
    """Image and mask; the package reads voxels when they are first asked for, which is no inner call."""
    image, mask = load(given.source), load(given.mask)
    image.get_data(), mask.get_data()
    return image, mask


def _n4(given: Given) -> float:
    return _n4_shrunk(given, N4_SHRINK)


def _n4_whole(given: Given) -> float:
    return _n4_shrunk(given, 1)


def _n4_shrunk(given: Given, factor: int) -> float:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(given.threads)
    image = SimpleITK.ReadImage(given.source, SimpleITK.sitkFloat32)
    mask = SimpleITK.ReadImage(given.mask, SimpleITK.sitkUInt8)
    thin = min(image.GetSpacing())
    factors = [1 if size > N4_THICK * thin else factor for size in image.GetSpacing()]

    def corrected() -> Any:
        corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
        corrector.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
        return image / SimpleITK.Exp(corrector.GetLogBiasFieldAsImage(image))

    seconds, result = _timed(corrected)
    SimpleITK.WriteImage(result, given.target)
    return seconds


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


#: Reading and writing alone is what no method can do without.
FLOOR, OURS = "reading and writing", "ours"
#: As SimpleITK does it by itself; it takes minutes.
N4_WHOLE = "N4, all voxels"
METHODS: dict[str, Callable[[Given], float]] = {
    FLOOR: _floor,
    OURS: _ours,
    "Nyúl": _nyul,
    "FCM": _fcm,
    "N4": _n4,
    N4_WHOLE: _n4_whole,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.one_scan")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--mask", help="the brain; Nyúl, FCM and N4 ask for it")
    parser.add_argument("--standard", type=Path, help="what Nyúl was fitted to")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
