"""The frame of all pages, and how their templates are filled in.

Pages load nothing from the network, are read without scripts, in light and in dark, and print. Whatever a
template shows is escaped, unless it is `Markup`: only drawings and assets of this program are.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bids_harmonize.measures.image_quality import format_significant
from bids_harmonize.report.components import numbers


def render_page(kind: str, *, script: bool = False, **content: Any) -> str:
    """A whole HTML page.

    Parameters
    ----------
    kind
        Kind of the page: the name of its template and of its style sheet, such as ``group``.
    script
        Whether the page has a script of that name as well, which runs once the page is there.
    content
        What the template shows; ``title`` is the window's.
    """
    own_script = asset(f"{kind}.js") if script else Markup()
    return (
        _environment()
        .get_template(f"{kind}.html.j2")
        .render(
            style=asset("page.css") + asset(f"{kind}.css"),
            script=own_script,
            policy=_policy(own_script),
            **content,
        )
    )


@cache
def asset(name: str) -> Markup:
    """A style sheet or script of the package."""
    folder = resources.files("bids_harmonize.report.components") / "assets"
    return Markup((folder / name).read_text(encoding="utf-8"))


def _policy(script: str) -> str:
    """What a browser may do with the page: run this script and no other, and fetch nothing but pictures."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bids_harmonize.report.components"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for formatter in (
        numbers.decibel,
        numbers.decibel_as_percent,
        numbers.digits,
        numbers.duration,
        numbers.join_values,
        numbers.percent,
        numbers.pluralize,
        numbers.sentence,
        numbers.signed_percent,
        numbers.whole_percent,
        format_significant,
    ):
        environment.filters[formatter.__name__] = formatter
    return environment
