"""Which figures of a scan there are, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.json_object import read_object
from bids_harmonize.files.schema import (
    Fields,
    check_fields,
    is_flag,
    is_number,
    is_positive,
    is_text,
    list_of,
)
from bids_harmonize.measures.histogram import ReferenceIntensities
from bids_harmonize.report.components.thumbnails import thumbnail_path

BEFORE, AFTER, EDIT, CURVES, HISTOGRAM = "before", "after", "edit", "curves", "histogram"
# Axis across which each plane lies, of volumes whose axes are right, anterior, superior.
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}


@dataclass(frozen=True, kw_only=True)
class FigureInputs:
    """What there is of a scan besides its original, and where its figures go.

    Attributes
    ----------
    key
        Changes when anything does that the figures are made from.
    image
        The derivative.
    transform
        The saved curves; None if they were not saved.
    harmonized
        False if the derivative is the original, passed through.
    gain
        Median of after/before over the foreground, as the sidecar says; None if it does not.
    reference
        Intensities of the model's reference group, where they are known.
    figures
        Path of a figure without its ending, a format string with ``{}`` where it says what it shows.
    """

    key: str
    image: Path
    transform: Path | None
    harmonized: bool
    gain: float | None
    reference: ReferenceIntensities | None
    figures: str

    def picture(self, what: str, plane: str) -> Path:
        """Path of the picture of a slice."""
        return Path(self.figures.format(f"{what}{plane.capitalize()}") + ".png")

    def drawing(self, what: str) -> Path:
        """Path of the drawing of curves or histogram."""
        return Path(self.figures.format(what) + ".svg")

    @property
    def thumbnail(self) -> Path:
        """Path of the small picture that the page about a group shows."""
        return thumbnail_path(self.figures)

    @property
    def manifest(self) -> Path:
        """Path of the manifest."""
        return Path(self.figures.format("figures") + ".json")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A slice that is shown: its number and that of all slices, from left, back or below; its size in mm."""

    name: str
    number: int
    slices: int
    across: float
    upwards: float


@dataclass(frozen=True, kw_only=True)
class FigureManifest:
    """What was drawn of a scan.

    Attributes
    ----------
    key
        Key of the scan when they were drawn.
    missing
        Why the original is not shown; empty if it is.
    pictures
        Which of before, after and edit there are, in three planes each.
    drawings
        Which of curves and histogram there are.
    oriented
        Whether the image says where left and right are.
    edit_limit
        Per cent at the ends of the edit's colours; None if there is no edit map.
    from_transform
        Whether the tone curves are the saved ones.
    apart
        Share of tissue whose intensity differs from the reference group's typical histogram, of before and
        after, as far as known.
    voxels, zooms
        Shape and voxel size in mm of the image as it is shown.
    """

    key: str
    missing: str
    pictures: Sequence[str]
    drawings: Sequence[str]
    planes: Sequence[Plane]
    oriented: bool
    edit_limit: float | None
    from_transform: bool
    apart: Mapping[str, float]
    voxels: Sequence[int]
    zooms: Sequence[float]

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path) -> Self:
        """Read what `to_json` gave.

        Raises
        ------
        BadData
            The file `path`, which holds it, is damaged.
        """
        check_fields(path, content, MANIFEST_FIELDS)
        try:
            return cls(**{**content, "planes": [Plane(**plane) for plane in content["planes"]]})
        except (LookupError, TypeError) as error:
            raise BadData(f"{path} does not list the figures of a scan") from error

    def to_json(self) -> dict[str, Any]:
        """The object that is written, with the names of the attributes as keys."""
        return asdict(self)

    @classmethod
    def read(cls, scan: FigureInputs) -> Self | None:
        """What was drawn before; None if that is not known, or not all of it is there any more."""
        try:
            drawn = cls.from_json(read_object(scan.manifest), scan.manifest)
        except (BadData, NoInput):
            return None
        return drawn if all(path.is_file() for path in drawn.files(scan)) else None

    def files(self, scan: FigureInputs) -> list[Path]:
        """All figures."""
        pictures = [scan.picture(what, plane.name) for what in self.pictures for plane in self.planes]
        return [*pictures, *(scan.drawing(what) for what in self.drawings), scan.thumbnail]


def _some_of(*known: str) -> Callable[[object], bool]:
    return list_of(lambda value: value in known)


def _is_plane(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("name") in tuple(PLANES)
        and all(is_positive(value.get(key)) for key in ("number", "slices", "across", "upwards"))
    )


MANIFEST_FIELDS: Fields = {
    **dict.fromkeys(("key", "missing"), is_text),
    "pictures": lambda value: bool(value) and _some_of(BEFORE, AFTER, EDIT)(value),
    "drawings": _some_of(CURVES, HISTOGRAM),
    "planes": list_of(_is_plane),
    **dict.fromkeys(("oriented", "from_transform"), is_flag),
    "edit_limit": lambda value: value is None or is_positive(value),
    "apart": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    **dict.fromkeys(("voxels", "zooms"), list_of(is_positive)),
}
"""What the file that says what was drawn must hold."""
