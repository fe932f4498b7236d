"""The command line for one file outside of any dataset: ``bids-harmonize-image IN OUT``.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from bids_harmonize import console
from bids_harmonize.bids.outputs import image_stem
from bids_harmonize.bids.runs import MODALITY_OF_SUFFIX
from bids_harmonize.errors import UsageError
from bids_harmonize.options import ImageOptions

PROGRAM = "bids-harmonize-image"
MODALITIES = ("T1w", "T2w")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; ``argv`` defaults to the arguments of this process."""
    return console.guard(PROGRAM, lambda: _run(argv))


def parse(argv: Sequence[str], *, program: str = PROGRAM) -> ImageOptions:
    """Turn arguments, and the program's name as typed, into `ImageOptions`.

    Raises
    ------
    UsageError
        An argument is unknown, missing or malformed, or nothing says what modality the image is of.
    """
    given = parser().parse_args(argv)
    if image_stem(given.output.name) is None:
        raise UsageError(f"the output {given.output} must end in .nii.gz or .nii")
    modality = given.modality or modality_of_name(given.source.name)
    if modality is None and given.model is None:
        raise UsageError(
            f"nothing says whether {given.source} is T1w or T2w: its name ends in neither _T1w nor _T2w; "
            "give --modality"
        )
    return ImageOptions(
        source=given.source,
        output=given.output,
        modality=modality,
        models=() if given.model is None else (given.model,),
        out_of_distribution=given.out_of_distribution,
        device=given.device,
        omp_nthreads=given.omp_nthreads or console.default_cpus(os.environ),
        save_transform=given.save_transform,
        force=given.force,
        verbosity=console.verbosity(given),
        command=(program, *argv),
    )


def modality_of_name(name: str) -> str | None:
    """The modality that a file's name ends in, by BIDS's suffixes; None where it ends in none."""
    stem = image_stem(name) or name
    return MODALITY_OF_SUFFIX.get(stem.rsplit("_", 1)[-1])


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    top = console.Parser(
        PROGRAM,
        usage=f"{PROGRAM} IN OUT [options]",
        description="Harmonize one T1w or T2w MRI scan, outside of any dataset: give it the intensities of a "
        "reference group, and leave its anatomy as it is. A sidecar, OUT with the ending .json, says how.",
        epilog="Every option may be spelled with underscores (--save_transform). Exit codes: 0 done, "
        "64 usage, 65 bad data, or a scan that the model is not meant for, 66 no input, "
        "73 cannot create output, 74 I/O error.",
    )
    _add_positionals(top.add_argument_group("what to do"))
    _add_harmonization(top.add_argument_group("how it is harmonized"))
    _add_resources(top.add_argument_group("resources"))
    console.add_information(top.add_argument_group("information"), PROGRAM)
    return top


def _run(argv: Sequence[str] | None) -> int:
    options = parse(sys.argv[1:], program=sys.argv[0]) if argv is None else parse(argv)
    from bids_harmonize.image_app import run

    return run(options)


def _add_positionals(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "source", metavar="IN", type=console.path, help="the scan, .nii.gz or .nii; never written to"
    )
    group.add_argument(
        "output", metavar="OUT", type=console.path, help="the harmonized scan to write, .nii.gz or .nii"
    )
    console.add(
        group,
        "--force",
        action="store_true",
        help="replace OUT even if something else than this program wrote it",
    )


def _add_harmonization(group: argparse._ArgumentGroup) -> None:
    console.add(
        group,
        "--modality",
        metavar="SUFFIX",
        choices=MODALITIES,
        help=f"{' or '.join(MODALITIES)} (default: what the name of IN ends in, else what MODEL is for)",
    )
    console.add(
        group,
        "--model",
        metavar="MODEL",
        type=console.model,
        help="name of a bundled model, or .safetensors file (default: the bundled model for the modality, "
        "and for the BodyPart in the sidecar of IN, if there is one)",
    )
    console.add_save_transform(group)
    console.add_out_of_distribution(
        group, "fail", "fail (write nothing), skip (write it unchanged), or harmonize (and only flag it)"
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    console.add_device(group)
    console.add_threads(group, "$SLURM_CPUS_PER_TASK, else the CPUs this process may use")


if __name__ == "__main__":
    sys.exit(main())
