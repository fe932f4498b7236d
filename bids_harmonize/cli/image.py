"""The command line for one file outside of any dataset: ``bids-harmonize-image IN OUT``.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from bids_harmonize.bids.output_paths import IMAGE_ENDINGS, image_stem
from bids_harmonize.bids.run import MODALITIES, MODALITY_OF_SUFFIX
from bids_harmonize.cli import arguments, process
from bids_harmonize.errors import UsageError
from bids_harmonize.options import ImageOptions

PROGRAM = "bids-harmonize-image"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; ``argv`` defaults to the arguments of this process."""
    return process.run_cli(PROGRAM, lambda: _run(argv))


def program() -> NoReturn:
    """Run the command as the process that this is."""
    process.leave(main())


def parse(argv: Sequence[str], *, program: str = PROGRAM) -> ImageOptions:
    """Turn arguments, and the program's name as typed, into `ImageOptions`.

    Raises
    ------
    UsageError
        An argument is unknown, missing or malformed, or the modality of the image is unknown.
    """
    fields = vars(parser().parse_args(argv))
    source, output, model = fields["source"], fields["output"], fields.pop("model")
    if image_stem(output.name) is None:
        raise UsageError(f"the output {output} must end in {', '.join(IMAGE_ENDINGS)}")
    fields["modality"] = fields["modality"] or modality_of_name(source.name)
    if fields["modality"] is None and model is None:
        raise UsageError(
            f"the modality of {source} is unknown: its name ends in no suffix of BIDS, such as _T1w; "
            "give --modality"
        )
    fields["omp_nthreads"] = fields["omp_nthreads"] or arguments.default_cpus(os.environ)
    return ImageOptions(**fields, models=() if model is None else (model,), command=(program, *argv))


def modality_of_name(name: str) -> str | None:
    """The modality that a file's name ends in, by BIDS's suffixes; None where it ends in none."""
    stem = image_stem(name) or name
    return MODALITY_OF_SUFFIX.get(stem.rsplit("_", 1)[-1])


def parser() -> arguments.Parser:
    """Build the argument parser."""
    top = arguments.Parser(
        PROGRAM,
        usage=f"{PROGRAM} IN OUT [options]",
        description="Harmonize one T1w or T2w MRI scan, outside of any dataset: give it the intensities of a "
        "reference group, and leave its anatomy unchanged. A sidecar, OUT with the ending .json, says how.",
        epilog="Every option may be spelled with underscores (--save_transform). Exit codes: 0 done, "
        "64 usage, 65 bad data (or a scan that looks out of distribution), 66 no input, "
        "73 cannot create output, 74 I/O error.",
    )
    _add_positionals(top.add_argument_group("what to do"))
    _add_harmonization(top.add_argument_group("how it is harmonized"))
    _add_resources(top.add_argument_group("resources"))
    arguments.add_information(top.add_argument_group("information"), PROGRAM)
    return top


def _run(argv: Sequence[str] | None) -> int:
    options = parse(sys.argv[1:], program=sys.argv[0]) if argv is None else parse(argv)
    process.leave_removed_folder()
    from bids_harmonize.commands.single_image import run

    return run(options)


def _add_positionals(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "source",
        metavar="IN",
        type=arguments.path,
        help="the scan, NIfTI (.nii.gz, .nii) or FreeSurfer's (.mgz, .mgh); never written to",
    )
    group.add_argument(
        "output",
        metavar="OUT",
        type=arguments.path,
        help="the harmonized scan to write, in the format that its name says",
    )
    arguments.add(
        group,
        "--force",
        action="store_true",
        help="replace OUT even if this program did not write it",
    )


def _add_harmonization(group: argparse._ArgumentGroup) -> None:
    arguments.add(
        group,
        "--modality",
        metavar="SUFFIX",
        choices=MODALITIES,
        help=f"one of {', '.join(MODALITIES)} (default: from the name of IN, else that of MODEL)",
    )
    arguments.add(
        group,
        "--model",
        metavar="MODEL",
        type=arguments.model,
        help="name of a bundled model, or .safetensors file (default: the bundled model for the modality, "
        "and for the BodyPart in the sidecar of IN, if any)",
    )
    arguments.add_pool(group, "which the scan belongs to")
    arguments.add_save_transform(group)
    arguments.add_out_of_distribution(
        group, "fail", "fail (write nothing), skip (write it unchanged), or harmonize (but flag it)"
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    arguments.add_device(group)
    arguments.add_threads(group, "$SLURM_CPUS_PER_TASK, else the CPUs this process may use")


if __name__ == "__main__":
    program()
