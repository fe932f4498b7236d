"""The group's page in a browser: nothing fails, nothing is fetched, and sorting and filtering work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bids_harmonize.commands.group import write_group_reports
from tests.helpers.browser import WINDOWS, Tab, open_tab
from tests.helpers.group_results import REFERENCE, SITES, intensities, record, write_group, write_sidecar


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    out = write_group(folder, 24)
    write_sidecar(out, "sub-0003_T1w", record(intensities(SITES["north"], 1.5 * REFERENCE, 3)))
    (out / "sub-0004/anat/sub-0004_desc-harmonized_T1w.json").unlink()
    passed = record(intensities(SITES["south"], None, 4), harmonized=False)
    write_sidecar(out, "sub-0004_T1w", passed)
    (out / "sub-0003.html").write_text("<title>sub-0003</title>")
    (report,) = write_group_reports(out, folder)
    return report.page.as_uri()


def column(tab: Tab, head: str) -> list[str]:
    """Texts of the scans that are shown, as they are ordered."""
    return tab.page.evaluate(
        """head => {
          const table = document.getElementById("scans");
          const n = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === head);
          return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[n].innerText);
        }""",
        head,
    )


@pytest.fixture
def tab(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """The page, opened with the settings that a test gives as a parameter."""
    with open_tab(chromium, address, **getattr(request, "param", {})) as tab:
        yield tab


@pytest.mark.parametrize("tab", WINDOWS, indirect=True)
def test_it_loads_fits_and_can_be_read_by_everybody(tab: Tab, address: str) -> None:
    assert tab.messages == []
    assert tab.requests == [address]
    assert tab.fits
    assert tab.violations() == []


def test_columns_are_sorted_by_number_and_by_name_with_what_is_missing_last(tab: Tab) -> None:
    head = tab.page.get_by_role("columnheader", name="White matter")
    head.get_by_role("button").focus()
    for key, order, sign in (("Enter", "ascending", 1), ("Space", "descending", -1)):
        tab.page.keyboard.press(key)
        assert head.get_attribute("aria-sort") == order
        values = column(tab, "White matter")
        assert len(values) == 24 and values[-1] == "–"
        numbers = [sign * float(value) for value in values[:-1]]
        assert numbers == sorted(numbers)
    tab.page.get_by_role("columnheader", name="Site").get_by_role("button").click()
    sites = column(tab, "Site")
    assert sites == sorted(sites)
    assert tab.page.locator("#scans [aria-sort]").count() == 1
    assert tab.messages == []


def test_scans_are_filtered_by_text_site_and_kind(tab: Tab) -> None:
    status = tab.page.get_by_role("status")
    assert status.inner_text() == "24 of 24 shown"
    tab.page.get_by_label("Site").select_option("south")
    assert set(column(tab, "Site")) == {"south"} and status.inner_text() == "8 of 24 shown"
    tab.page.get_by_label("Find").fill("SUB-0010")
    assert column(tab, "Scan") == ["sub-0010_T1w"]
    tab.page.get_by_label("Find").fill("")
    tab.page.get_by_label("Site").select_option("")
    tab.page.get_by_label("Show").select_option("outlier")
    assert column(tab, "Scan") == ["sub-0003_T1w"]
    tab.page.get_by_label("Show").select_option("unlike")
    assert column(tab, "Scan") == ["sub-0004_T1w"]
    assert tab.messages == []


def test_an_outlier_leads_to_its_page(tab: Tab) -> None:
    tab.page.get_by_role("link", name="sub-0003_T1w").first.click()
    assert tab.page.title() == "sub-0003"


@pytest.mark.parametrize("tab", [{"java_script_enabled": False}], indirect=True)
def test_all_is_there_without_scripts(tab: Tab) -> None:
    assert tab.page.locator("#scans tbody tr").count() == 24
    assert not tab.page.locator("#controls").is_visible()
    assert tab.page.get_by_text("The intensities of two sites differ by").is_visible()
