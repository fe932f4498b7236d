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

#: Factor by which users of N4 shrink a scan before they fit the field.
N4_SHRINK = 4
#: Slices this much thicker than pixels are not shrunk along their axis.
N4_THICK = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Harmonize one scan, and print the seconds of the inner call."""
    options = _parser().parse_args(arguments)
    print(json.dumps({"InnerSeconds": METHODS[options.method](options)}))
    return 0


def _read_and_write(options: argparse.Namespace) -> float:
    """Read, write as float32, and nothing else."""
    import nibabel as nib
    import numpy as np

    def copied() -> None:
        image = nib.Nifti1Image.from_filename(options.source)
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        nib.save(nib.Nifti1Image(voxels, image.affine), options.target)

    return _timed(copied)[0]


def _ours(options: argparse.Namespace) -> float:
    import nibabel as nib
    import numpy as np
    import torch

    from bids_harmonize import Model

    torch.set_num_threads(options.threads)
    model = Model.load("T1w", options.device)
    on_disk = nib.Nifti1Image.from_filename(options.source)
    # The voxels are read here, so that reading is no part of the inner call.
    image = nib.Nifti1Image(np.asarray(on_disk.dataobj, dtype=np.float32), on_disk.affine, on_disk.header)
    seconds, result = _timed(lambda: model.harmonize(image))
    nib.save(result.image, options.target)
    return seconds


def _nyul(options: argparse.Namespace) -> float:
    from intensity_normalization import NyulNormalizer
    from intensity_normalization.adapters.io import load_image, save_image

    image, mask = _read(load_image, options)
    normalizer = NyulNormalizer()
    normalizer.load_standard_histogram(str(options.standard))
    seconds, result = _timed(lambda: normalizer.transform(image, mask))
    save_image(result, options.target)
    return seconds


def _fcm(options: argparse.Namespace) -> float:
    from intensity_normalization import FCMNormalizer
    from intensity_normalization.adapters.io import load_image, save_image

    image, mask = _read(load_image, options)
    seconds, result = _timed(lambda: FCMNormalizer().fit_transform(image, mask))
    save_image(result, options.target)
    return seconds


def _read(load: Callable[[str], Any], options: argparse.Namespace) -> tuple[Any, Any]:
    """Image and mask; the package reads voxels on first use, which must not be in the inner call."""
    image, mask = load(options.source), load(options.mask)
    image.get_data(), mask.get_data()
    return image, mask


def _n4(options: argparse.Namespace) -> float:
    return _n4_shrunk(options, N4_SHRINK)


def _n4_whole(options: argparse.Namespace) -> float:
    return _n4_shrunk(options, 1)


def _n4_shrunk(options: argparse.Namespace, factor: int) -> float:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(options.threads)
    image = SimpleITK.ReadImage(options.source, SimpleITK.sitkFloat32)
    mask = SimpleITK.ReadImage(options.mask, SimpleITK.sitkUInt8)
    thin = min(image.GetSpacing())
    factors = [1 if size > N4_THICK * thin else factor for size in image.GetSpacing()]

    def corrected() -> Any:
        corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
        corrector.Execute(SimpleITK.Shrink(image, factors), SimpleITK.Shrink(mask, factors))
        return image / SimpleITK.Exp(corrector.GetLogBiasFieldAsImage(image))

    seconds, result = _timed(corrected)
    SimpleITK.WriteImage(result, options.target)
    return seconds


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


#: Reading and writing alone, which no method can do without; and the program itself.
FLOOR, OURS = "reading and writing", "ours"
#: N4 without shrinking, which is the default of SimpleITK; it takes minutes.
N4_WHOLE = "N4, all voxels"
METHODS: dict[str, Callable[[argparse.Namespace], float]] = {
    FLOOR: _read_and_write,
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
    parser.add_argument("--mask", help="mask of the brain; required by Nyúl, FCM and N4")
    parser.add_argument("--standard", type=Path, help="standard histogram that Nyúl was fitted to")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
