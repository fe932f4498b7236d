"""Pictures and drawings that pages embed."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bids_harmonize.files.atomic import locked_temp_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito's palette (2008), told apart with any kind of colour vision; the page has its own
# shades of them for light and dark.
INK, FAINT, BLUE, ORANGE = "#010203", "#040506", "#0072b2", "#d55e00"
SHADES = {INK: "var(--ink)", FAINT: "var(--faint)", BLUE: "var(--blue)", ORANGE: "var(--orange)"}
# Size of a figure in inches; its text can still be read on a phone.
FIGURE_WIDTH, FIGURE_HEIGHT = 5.0, 3.0
# Where its panel lies in a figure: numbers and words are beside and below it, above a legend of two rows.
MARGINS = {"left": 0.13, "right": 0.97, "bottom": 0.16, "top": 0.83}


@contextmanager
def matplotlib_cache_dir(folder: Path) -> Iterator[None]:
    """Draw though home may be read-only or missing, and no other folder but this one be writable.

    Matplotlib must keep its list of fonts somewhere; in that case, in a hidden folder here, until the end.
    """
    home = os.path.expanduser("~")
    if "MPLCONFIGDIR" in os.environ or (os.path.isdir(home) and os.access(home, os.W_OK)):
        yield
        return
    with locked_temp_folder(folder) as scratch:
        os.environ["MPLCONFIGDIR"] = str(scratch)
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def grey_png(plane: NDArray[np.float32], window: float) -> bytes:
    """A slice as PNG, one pixel per voxel.

    Parameters
    ----------
    plane
        (across, upwards), the lower left voxel first.
    window
        What is white; black is 0.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(grey_pixels(plane, window)).save(file, format="png")
    return file.getvalue()


def grey_pixels(plane: NDArray[np.float32], window: float) -> NDArray[np.uint8]:
    """The rows of a slice as they are seen, see `grey_png`."""
    grey = np.clip(plane.T[::-1] * np.float32(255 / max(window, 1e-30)), 0, 255)
    return np.rint(grey).astype(np.uint8)


def data_uri(picture: bytes, kind: str = "png") -> str:
    """The address of a picture that is part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def plain_axes(panel: Axes) -> None:
    """Axes in the page's colours, without a frame."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5)


def plain_figure() -> tuple[Figure, Axes]:
    """A figure of one panel in the page's colours."""
    from matplotlib.figure import Figure

    # A layout that finds its own margins draws everything twice.
    figure = Figure(figsize=(FIGURE_WIDTH, FIGURE_HEIGHT))
    panel = figure.subplots(gridspec_kw=MARGINS)
    plain_axes(panel)
    return figure, panel


def legend_above(panel: Axes, *, columns: int = 2, size: float = 8.5) -> None:
    """A legend above a panel, so that it covers nothing."""
    panel.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=columns,
        frameon=False,
        fontsize=size,
        labelcolor=INK,
    )


def svg(figure: Figure, description: str) -> Markup:
    """A figure as part of the page, in its colours: those in `SHADES` follow light and dark.

    Parameters
    ----------
    description
        What is seen, for those who do not see it.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": description}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    for colour, shade in SHADES.items():
        text = text.replace(colour, shade)
    # A page may hold several figures, and names must be unique in it.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    opened = Markup('<svg role="img" aria-label="{}"').format(description)
    return opened + Markup(text.removeprefix("<svg"))
