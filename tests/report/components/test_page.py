"""What all pages share: escaped text, one script at most, nothing from elsewhere, and complete templates."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

import pytest
from jinja2 import UndefinedError

from bids_harmonize.report.components.page import asset, render_page
from tests.helpers.html_page import Page

FOLDER = resources.files("bids_harmonize.report.components")
TEMPLATES = sorted(path.name for path in (FOLDER / "templates").iterdir())
ASSETS = sorted(path.name for path in (FOLDER / "assets").iterdir())
KINDS = ("group", "participant", "training")


def test_every_kind_of_page_has_a_template_and_a_style() -> None:
    assert {f"{kind}.html.j2" for kind in KINDS} <= set(TEMPLATES)
    assert {f"{kind}.css" for kind in ("page", *KINDS)} <= set(ASSETS)


@pytest.mark.parametrize("name", ASSETS)
def test_assets_load_nothing_from_elsewhere(name: str) -> None:
    assert not re.search(r"url\(|@import|https?:|fetch|XMLHttp|eval|innerHTML", asset(name))
    # Either would end the element that it stands in.
    assert "</" not in asset(name)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_escape_whatever_they_show(name: str) -> None:
    text = (FOLDER / "templates" / name).read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|\bon\w+=", text)
    # The style and the script of the page are the only ones.
    assert len(re.findall("<script|<style", text)) == (2 if name == "page.html.j2" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_template_wants_must_be_given(kind: str) -> None:
    with pytest.raises(UndefinedError):
        render_page(kind, title="x")


def test_the_page_runs_its_own_script_and_no_other() -> None:
    page = Page(render_page("page", title="</title><script>alert(1)</script>"))
    assert page.text.strip() == "</title><script>alert(1)</script>"
    assert not page.all("script")
    (policy,) = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None and "default-src 'none'" in policy
    digest = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
