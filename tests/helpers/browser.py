"""Pages in a browser, as tests open them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

WIDE, NARROW = 1280, 360
# Parameters of fixtures that open a page with `settings`: every combination of width and colour scheme.
WINDOWS = [
    pytest.param(
        {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}, id=f"{scheme}-{width}"
    )
    for width in (WIDE, NARROW)
    for scheme in ("light", "dark")
]


@dataclass(kw_only=True)
class Tab:
    """An open page, what it wrote to the console, and the addresses that it asked for."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    def violations(self) -> list[tuple[str, str]]:
        """What axe finds that not everybody can read or use: rules and elements."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [(violation["id"], violation["nodes"][0]["html"]) for violation in found]


@contextmanager
def open_tab(chromium: Any, address: str, **settings: Any) -> Iterator[Tab]:
    """Open a page with settings of the browser's context."""
    context = chromium.new_context(**settings)
    tab = Tab(page=context.new_page())
    tab.page.on("console", lambda message: tab.messages.append(message.text))
    tab.page.on("pageerror", lambda error: tab.messages.append(str(error)))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    # A busy machine is no reason to fail.
    tab.page.set_default_timeout(300_000)
    tab.page.goto(address)
    try:
        yield tab
    finally:
        context.close()
