"""What all pages share: frame, style, tables, pictures, curves; whatever is shown is escaped here.

Pages load nothing from the network, are read without scripts, in light and in dark, and print.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.bids.atomic import hidden_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Between a number and its unit.
SPACE = "\N{NO-BREAK SPACE}"
# Colours of Okabe and Ito's palette (2008), told apart with any kind of colour vision; the page has its own
# shades of them for light and dark.
INK, FAINT, BLUE, ORANGE = "#010203", "#040506", "#0072b2", "#d55e00"
SHADES = {INK: "var(--ink)", FAINT: "var(--faint)", BLUE: "var(--blue)", ORANGE: "var(--orange)"}

STYLE = """
:root { color-scheme: light dark; --ink: #111827; --faint: #4b5563; --paper: #ffffff; --panel: #f3f4f6;
  --line: #d1d5db; --blue: #0072b2; --orange: #b84f00; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --faint: #a8b0bd; --paper: #11151c;
  --panel: #1c222c; --line: #374151; --blue: #56b4e9; --orange: #f0a04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 44rem; }
a { color: var(--blue); }
:focus-visible { outline: .15rem solid var(--blue); outline-offset: .15rem; }
.faint, figcaption, small { color: var(--faint); }
.lead { font-size: 1.1rem; }
.warning { border-left: .3rem solid var(--orange); background: var(--panel); padding: .6rem .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem;
  margin: 1rem 0; }
.tiles div { background: var(--panel); border-radius: .4rem; padding: .75rem .9rem; }
.tiles b { display: block; font-size: 1.6rem; line-height: 1.3; }
pre { background: var(--panel); border-radius: .4rem; padding: .75rem .9rem; white-space: pre-wrap;
  font-size: .9rem; }
figure { margin: 1rem 0; }
figcaption { font-size: .9rem; }
.curves svg { width: 100%; height: auto; max-width: 42rem; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--faint); font-weight: 600; }
th { overflow-wrap: normal; }
td { min-width: 7rem; }
.whole { min-width: 0; white-space: nowrap; font-variant-numeric: tabular-nums; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; max-width: 44rem; }
li { margin: .3rem 0; max-width: 44rem; }
@media print { :root { color-scheme: light; } body { font-size: 10pt; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; } figure, .tiles, tr, .warning { break-inside: avoid; }
  .wide { overflow: visible; } }
"""


def page(title: str, parts: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole HTML page.

    Parameters
    ----------
    title
        Of the window, as text.
    parts
        HTML; empty ones are left out.
    style, script
        What this page needs besides `STYLE`; the script runs once the page is there.
    """
    end = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n{end}</body>\n</html>\n"
    )


def _policy(script: str) -> str:
    """What a browser may do with the page: run this script and no other, and fetch nothing but pictures."""
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{own}'"
    )


def section(title: str, content: str) -> str:
    """A heading and HTML below it; nothing where there is no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of text; `kind` is a class of the style, such as ``faint``, ``lead`` or ``warning``."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], whole: Container[int] = ()) -> str:
    """A table of text; the columns numbered in `whole` are not broken into lines."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f"<tr>{''.join(_cell(text, n in whole) for n, text in enumerate(row))}</tr>" for row in rows
    )
    return scrolled(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>")


def scrolled(content: str) -> str:
    """HTML that may be wider than the window, and is then moved sideways by itself, by keys too."""
    return f'<div class="wide" tabindex="0">{content}</div>'


def _cell(text: str, whole: bool) -> str:
    return f'<td class="whole">{escape(text)}</td>' if whole else f"<td>{escape(text)}</td>"


def count(number: int, what: str) -> str:
    """A number of things, in the plural where it must be."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(value: Any) -> str:
    """A value from a JSON file, lists in one line."""
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value or "")


@contextmanager
def drawing_in(folder: Path) -> Iterator[None]:
    """Draw though home may be read-only or missing, and no other folder but this one be writable.

    Matplotlib must keep its list of fonts somewhere; in that case, in a hidden folder here, until the end.
    """
    home = os.path.expanduser("~")
    if "MPLCONFIGDIR" in os.environ or (os.path.isdir(home) and os.access(home, os.W_OK)):
        yield
        return
    with hidden_folder(folder) as scratch:
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

    grey = np.clip(plane.T[::-1] * np.float32(255 / max(window, 1e-30)), 0, 255)
    file = io.BytesIO()
    Image.fromarray(np.rint(grey).astype(np.uint8)).save(file, format="png")
    return file.getvalue()


def embedded(png: bytes, described: str, attributes: str) -> str:
    """A picture as part of the page.

    Parameters
    ----------
    described
        What is seen, for those who do not see it.
    attributes
        More of HTML's, not escaped here.
    """
    data = base64.b64encode(png).decode("ascii")
    return f'<img {attributes} alt="{escape(described)}" src="data:image/png;base64,{data}">'


def plain_axes(panel: Axes) -> None:
    """Axes in the page's colours, without a frame."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=FAINT, labelcolor=INK, labelsize=8.5)


def svg(figure: Figure, described: str) -> str:
    """A figure as part of the page, in its colours: those in `SHADES` follow light and dark.

    Parameters
    ----------
    described
        What is seen, for those who do not see it.
    """
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.hashsalt": described}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    for colour, shade in SHADES.items():
        text = text.replace(colour, shade)
    # A page may hold several figures, and names must be unique in it.
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(described)}"', 1)
