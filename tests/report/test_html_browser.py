"""The page in a real browser: renders, sorts, filters, copies, and does nothing that a name says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import cml_bench

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
HOSTILE = "x<script>window.hacked=1</script>\"'</style>"
HOSTILE_LABEL = '</text></svg><img src="x" onerror="window.hacked=1">'
METHODS = ("joint", "er memory_size=200", "er head=dlfl", HOSTILE, "naive")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(stored_runs: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page on two benchmarks with hostile names wherever names come from outside."""

    def change(document: dict[str, Any]) -> None:
        document["benchmark"]["title"] += " <b onclick=alert(1)>"
        groups = {"major": ["a", HOSTILE_LABEL], "minor": ["b", "c", "d", "e"]}
        document["benchmark"]["label_groups"] = groups
        document["environment"]["code_version"] = "0.1.0</code><script>window.hacked=1</script>"
        document["job"]["benchmark_options"] = {"regime": "missing_positives rate=0.4 '\"<i>"}

    folder = tmp_path_factory.mktemp("page")
    names = (*"abcde", HOSTILE_LABEL)
    runs = stored_runs(folder / "runs", METHODS, benchmarks=("digits", "voc"), seeds=(0, 1), names=names, change=change)
    return cml_bench.write_report(runs, folder / "report.html", figures=False).as_uri()


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Open]:
    """Open the page; afterwards it must have complained of nothing and asked for nothing but itself."""
    contexts, complaints, asked = [], [], []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    assert complaints == []
    # Pictures within the page are data, not requests to anybody.
    assert {url for url in asked if not url.startswith("data:")} == {address}
    for context in contexts:
        context.close()


def column(page: Page, title: str) -> list[str]:
    """Return the visible cells of a column of the first benchmark's table, top to bottom."""
    return page.evaluate(
        """title => {
            const table = document.querySelector("#digits .summary");
            const heads = [...table.tHead.rows[0].cells].filter(head => !head.hidden);
            const at = heads.find(head => head.innerText.trim() === title).cellIndex;
            return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[at].dataset.value);
        }""",
        title,
    )


def click_head(page: Page, title: str) -> None:
    page.locator("#digits .summary thead").get_by_role("button", name=title, exact=True).click()


def test_renders_tables_and_pictures(opened: Open) -> None:
    page = opened()
    assert page.locator("section").count() == 3
    figures = page.locator("figure svg")
    assert figures.count() == 8 * 2 + 1
    for i in range(figures.count()):
        box = figures.nth(i).bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_sorts_by_any_column(opened: Open) -> None:
    page = opened()
    click_head(page, "last mAP")
    figures = [float(value) for value in column(page, "last mAP")]
    assert figures == sorted(figures, reverse=True)
    click_head(page, "last mAP")
    assert [float(value) for value in column(page, "last mAP")] == figures[::-1]
    assert page.locator("#digits [aria-sort]").get_attribute("aria-sort") == "ascending"
    click_head(page, "method")
    assert column(page, "method") == sorted(METHODS)


def test_filters_methods_and_columns(opened: Open) -> None:
    page = opened()
    page.locator("#digits .method-filter").fill("ER dlfl")
    assert column(page, "method") == ["er head=dlfl"]
    assert page.locator("#digits .shown").inner_text() == "1 of 5 methods"
    page.locator("#digits .method-filter").fill("")
    assert len(column(page, "method")) == 5
    box = page.locator("#digits fieldset").get_by_label("last mAP", exact=True)
    head = page.locator("#digits .summary thead").get_by_role("button", name="last mAP", exact=True)
    box.uncheck()
    assert head.count() == 0
    box.check()
    assert head.count() == 1


def test_chooses_a_group_of_labels(opened: Open) -> None:
    page = opened()
    heads = page.locator("#digits .summary thead")
    assert heads.get_by_role("button", name="last mAP, minor").count() == 0
    page.locator("#digits .group-filter").select_option("minor")
    assert heads.get_by_role("button", name="last mAP, minor").count() == 1
    assert heads.get_by_role("button", name="last mAP", exact=True).count() == 0
    assert heads.get_by_role("button", name="training seconds").count() == 1


def test_copies_commands_with_and_without_a_clipboard(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    line = page.locator("#digits .commands li").nth(1)
    line.get_by_role("button").click()
    line.get_by_text("copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == line.locator("code").inner_text()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('none here')); }")
    other = page.locator("#digits .commands li").nth(2)
    other.get_by_role("button").click()
    other.get_by_text("copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == other.locator("code").inner_text()


def test_names_are_shown_and_never_run(opened: Open) -> None:
    page = opened()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert HOSTILE in column(page, "method")
    text = page.locator("body").inner_text()
    assert "<b onclick=alert(1)>" in text
    assert "0.1.0</code><script>" in text
    assert page.locator("#digits-label_ap svg").text_content().count("</text></svg><img") > 0


def test_a_script_that_came_through_would_not_run(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.evaluate("document.body.innerHTML += '<img src=data:, onerror=window.hacked=1>'")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    page.close()


def test_a_phone_scrolls_tables_and_pictures_not_the_page(opened: Open) -> None:
    page = opened(viewport={"width": 360, "height": 740}, device_scale_factor=3, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    table = page.locator("#digits .scroll").first
    assert table.evaluate("box => box.scrollWidth > box.clientWidth")
    # The method stays in sight while figures are scrolled.
    table.evaluate("box => { box.scrollLeft = 200; }")
    first = page.locator("#digits tbody th").first.bounding_box()
    assert first is not None
    assert 0 <= first["x"] < 60


def brightness(page: Page, selector: str, name: str) -> float:
    colour = page.locator(selector).first.evaluate(f"element => getComputedStyle(element)['{name}']")
    return sum(int(part) for part in colour.strip("rgb()").split(",")) / 765


def test_no_head_of_a_column_runs_into_the_next(opened: Open) -> None:
    """A setting in a head is one word, and may be wider than the figures below."""
    page = opened()
    heads = page.locator(".summary thead th")
    heads.first.evaluate("head => { head.textContent = 'regime=missing_positives_and_more' }")
    over = heads.evaluate_all("heads => heads.filter(head => head.scrollWidth > head.clientWidth + 1).length")
    assert heads.count() > 0
    assert over == 0


def test_dark_where_the_reader_likes_it_dark_pictures_as_well(opened: Open) -> None:
    light, dark = opened(color_scheme="light"), opened(color_scheme="dark")
    assert brightness(light, "body", "backgroundColor") > 0.95
    assert brightness(dark, "body", "backgroundColor") < 0.2
    for selector, name in (("body", "color"), ("figure svg text", "fill"), ("#digits tbody th", "color")):
        assert brightness(light, selector, name) < 0.3
        assert brightness(dark, selector, name) > 0.7


def test_prints_light_and_without_controls(opened: Open) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print")
    assert brightness(page, "body", "backgroundColor") > 0.95
    assert not page.locator("#digits .controls").is_visible()
    assert not page.locator("#digits .copy").first.is_visible()
    assert page.locator("#digits .commands code").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_is_whole_without_scripts(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("#digits .summary tbody tr").count() == 5
    assert not page.locator("#digits .controls").is_visible()
    assert not page.locator("#digits .copy").first.is_visible()
