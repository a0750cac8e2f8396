"""The report in a real browser: what is drawn, what its script does, that it needs no network.

A Chromium of the system is driven (MCATRAIN_CHROMIUM names one); without one these are skipped.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import shutil
import struct
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import devicemodels
from calibration.measurements import write
from calibration.synthetic import measure
from mcatrain.cli import main

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
#: Opens a report and returns its page: open(path, hash, **options of the browser's context).
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    found = [os.environ.get("MCATRAIN_CHROMIUM"), *map(shutil.which, _NAMES)]
    path = next((path for path in found if path), None)
    if path is None:
        pytest.skip("no Chromium: install chromium, or name one in MCATRAIN_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def fit_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    write(measure(devicemodels.load("nandakumar2018"), 10, 4), folder / "reads.csv")
    options = ["--model", "set-response", "--steps", "5", "--draws", "20", "--compare", "none"]
    main(["fit", str(folder / "reads.csv"), "--out", str(folder / "mine.toml"), *options])
    return folder / "mine.report.html"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Open reports without a network; at the end there was no error, and no other request."""
    contexts, errors, requests, paths = [], [], [], set()

    def open_(path: Path, place: str = "", **options: Any) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}, "offline": True} | options
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(5000)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        paths.add(path.as_uri())
        page.goto(path.as_uri() + place)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []
    outside = [url for url in requests if url.split("#")[0] not in paths]
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []


def pages_of(page: Any) -> list[str]:
    return page.eval_on_selector_all(".page", "list => list.map(p => p.id)")


def shown(page: Any) -> list[str]:
    return page.eval_on_selector_all(
        ".page", "list => list.filter(p => p.offsetHeight).map(p => p.id)"
    )


def follow(page: Any, link: str, place: str) -> None:
    """Click a link to a page, which the browser shows a moment later."""
    page.click(link)
    page.wait_for_selector(f"[id='{place}'].here")
    assert shown(page) == [place]


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


# --- drawn ------------------------------------------------------------------------------------

#: Of the pictures of all pages: those of no size, with a text that is not seen, or broken.
_BAD_PICTURES = """() => {
  const bad = [];
  for (const picture of document.querySelectorAll("main svg, main img")) {
    const box = picture.getBoundingClientRect();
    const what = picture.getAttribute("aria-label") || picture.alt;
    if (box.width < 100 || box.height < 50) bad.push("no size: " + what);
    if (picture.tagName === "IMG") {
      if (!(picture.complete && picture.naturalWidth)) bad.push("broken: " + what);
      continue;
    }
    const inner = picture.getBBox();
    if (!inner.width || !inner.height) bad.push("empty: " + what);
    const card = getComputedStyle(picture.closest("figure")).backgroundColor;
    for (const mark of picture.querySelectorAll("text, path")) {
      const style = getComputedStyle(mark);
      const colours = [style.fill, style.stroke].filter((c) => c !== "none");
      if (mark.tagName === "text" && style.fill === card) bad.push("unseen text: " + what);
      if (colours.some((c) => c.includes("var"))) bad.push("unresolved colour: " + what);
    }
  }
  return bad;
}"""
#: Least contrast of the pages' texts with what is behind them, as WCAG counts it.
_CONTRAST = """() => {
  const parse = (c) => c.match(/[0-9.]+/g).map(Number);
  const light = (c) => {
    const [r, g, b] = parse(c).map((v) => v / 255).map(
      (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = [99, ""];
  const texts = "main :is(h1,h2,h3,p,li,td,th,figcaption,pre,code,summary,a,svg text), nav a";
  for (const element of document.querySelectorAll(texts)) {
    let behind = element;
    while (behind !== document.body) {
      const back = parse(getComputedStyle(behind).backgroundColor);
      if (back.length < 4 || back[3] > 0) break;
      behind = behind.parentElement;
    }
    const style = getComputedStyle(element);
    const ink = element.tagName === "text" ? style.fill : style.color;
    const two = [light(ink), light(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
    const contrast = (two[0] + 0.05) / (two[1] + 0.05);
    if (contrast < worst[0]) worst = [contrast, element.textContent.slice(0, 40)];
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_picture_is_drawn_and_every_text_seen(
    open_page: Open, full_report: Path, scheme: str
) -> None:
    page = open_page(full_report, color_scheme=scheme)
    page.add_style_tag(content=".js .page:not(.here) { display: block !important }")
    assert page.locator("main svg").count() > 40
    assert page.locator("main img").count() == 6
    assert page.evaluate(_BAD_PICTURES) == []
    contrast, where = page.evaluate(_CONTRAST)
    assert contrast > 4, where


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window(
    open_page: Open, full_report: Path, single_report: Path, width: int
) -> None:
    for path in (full_report, single_report):
        page = open_page(path, viewport={"width": width, "height": 800})
        page.evaluate("for (const d of document.querySelectorAll('main details')) d.open = true")
        for place in pages_of(page):
            page.evaluate("id => { location.hash = id }", place)
            page.wait_for_selector(f"#{place}.here")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, place


# --- pages ------------------------------------------------------------------------------------


def test_every_run_has_a_page_that_its_links_reach(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report)
    assert shown(page) == ["overview"]
    runs = [place for place in pages_of(page) if place.startswith("run-")]
    assert len(runs) == 6
    for place in runs:
        follow(page, f"#runs a[href='#{place}']", place)
        assert page.url.endswith("#" + place)
        page.click(".runlist summary")
        follow(page, ".bar a[href='#overview']", "overview")
        page.click(".runlist summary")
        follow(page, f".bar a[href='#{place}']", place)
        assert page.get_attribute(f".bar a[href='#{place}']", "aria-current") == "page"
        page.click(".bar a[href='#overview']")


def test_deep_links_and_the_way_back(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report, "#run-mca-on-nandakumar2018-seed-1")
    assert shown(page) == ["run-mca-on-nandakumar2018-seed-1"]
    assert "MCA on nandakumar2018, seed 1" in page.inner_text("main")
    follow(page, ".here a[href='#device-1']", "devices")
    page.go_back()
    page.wait_for_selector("#run-mca-on-nandakumar2018-seed-1.here")
    assert shown(page) == ["run-mca-on-nandakumar2018-seed-1"]
    page.go_forward()
    page.wait_for_selector("#devices.here")
    assert shown(open_page(full_report, "#nothing-of-the-kind")) == ["overview"]


def test_back_returns_to_where_the_page_was_left(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report)
    page.locator("#runs").scroll_into_view_if_needed()
    page.wait_for_timeout(50)  # scroll events come with the next frame
    before = page.evaluate("scrollY")
    assert before > 500
    page.locator("#runs a").last.click()
    page.wait_for_function("scrollY === 0")
    page.go_back()
    page.wait_for_selector("#overview.here")
    assert page.evaluate("scrollY") == pytest.approx(before, abs=200)


def test_without_script_and_on_paper_all_pages_are_shown(
    open_page: Open, full_report: Path
) -> None:
    page = open_page(full_report, java_script_enabled=False)
    count = page.locator(".page").count()
    assert count == 9
    assert all(page.locator(".page").nth(k).is_visible() for k in range(count))
    assert not page.locator(".theme").is_visible()
    page = open_page(full_report)
    assert len(shown(page)) == 1
    page.emulate_media(media="print")
    assert len(shown(page)) == 9


# --- colours ----------------------------------------------------------------------------------


def test_colours_follow_the_system_unless_chosen_and_are_remembered(
    open_page: Open, full_report: Path
) -> None:
    page = open_page(full_report, color_scheme="dark")
    dark = background(page)
    page.emulate_media(color_scheme="light")
    light = background(page)
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    inks = {page.evaluate(ink)}
    assert light != dark
    page.select_option(".theme select", "dark")
    assert background(page) == dark
    inks.add(page.evaluate(ink))
    assert len(inks) == 2
    page.reload()
    assert background(page) == dark
    assert page.input_value(".theme select") == "dark"
    page.emulate_media(color_scheme="dark")
    page.select_option(".theme select", "light")
    assert background(page) == light
    page.select_option(".theme select", "auto")
    assert background(page) == dark


def test_a_browser_that_refuses_to_remember_still_switches(
    open_page: Open, full_report: Path
) -> None:
    page = open_page(full_report)
    page.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no') } })"
    )
    page.reload()
    before = background(page)
    page.select_option(".theme select", "dark")
    assert background(page) != before


# --- tables -----------------------------------------------------------------------------------


def column(page: Any, table: str, place: int) -> list[str]:
    return page.eval_on_selector_all(
        f"{table} tbody tr", f"rows => rows.map(r => r.cells[{place}].textContent.trim())"
    )


def test_tables_sort_by_number_and_by_word(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report)
    assert page.locator("table").count() == page.locator("button.csv").count()
    heads = page.locator("#overview table.summary th .sort")
    at = next(k for k in range(heads.count()) if "Fréchet" in heads.nth(k).inner_text())
    before = column(page, "table.summary", at)
    assert all("±" in cell for cell in before)
    means = sorted(float(cell.split("±")[0].replace(",", "")) for cell in before)
    heads.nth(at).focus()
    for key, order, wanted in (
        ("Enter", "ascending", means), ("Space", "descending", means[::-1]),
        ("Enter", "ascending", means),
    ):  # fmt: skip
        page.keyboard.press(key)
        head = page.locator("#overview table.summary th").nth(at)
        assert head.get_attribute("aria-sort") == order
        found = [float(c.split("±")[0].replace(",", "")) for c in column(page, "table.summary", at)]
        assert found == wanted
    heads.nth(0).click()
    names = column(page, "table.summary", 0)
    assert names == sorted(names, key=str.lower)
    assert page.locator("table.summary th[aria-sort]").count() == 1


def test_sorting_knows_thousands_signs_and_what_is_missing(
    open_page: Open, full_report: Path
) -> None:
    page = open_page(full_report)
    cells = ["12", "—", "1,234", "−3.5", "−12", "0.5 ± 9", "12"]
    rows = "".join(f"<tr><th>{k}</th><td>{cell}</td></tr>" for k, cell in enumerate(cells))
    page.evaluate(
        "rows => { document.querySelector('table.runs tbody').innerHTML = rows }", rows
    )  # other rows under the same heads
    click = page.locator("table.runs th .sort").nth(1).click
    click()
    assert column(page, "table.runs", 0) == ["4", "3", "5", "0", "6", "2", "1"]
    click()
    assert column(page, "table.runs", 0) == ["2", "0", "6", "5", "3", "4", "1"]


def test_csv_is_the_table(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report, "#how")
    for place, name in (("overview", "summary"), ("how", "options"), ("devices", "parameters")):
        page.evaluate("id => { location.hash = id }", place)
        page.wait_for_selector(f"#{place}.here")
        table = page.locator(f"#{place} table.{name}").first
        with page.expect_download() as waiting:
            page.locator(f"#{place} .scroll:has(> table.{name}) + .csv").first.click()
        assert waiting.value.suggested_filename.startswith(name)
        text = Path(waiting.value.path()).read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text, newline="")))
        cells = table.evaluate(
            "t => [...t.rows].map(r => [...r.cells].flatMap(c => Array(c.colSpan)"
            ".fill(c.textContent.replace(/\\s+/g, ' ').trim())))"
        )
        assert rows == cells
        assert len(rows) > 3
    assert any('a "quoted", option' in cell for row in _csv(page, "how", "options") for cell in row)


def _csv(page: Any, place: str, name: str) -> list[list[str]]:
    page.evaluate("id => { location.hash = id }", place)
    page.wait_for_selector(f"#{place}.here")
    with page.expect_download() as waiting:
        page.locator(f"#{place} .scroll:has(> table.{name}) + .csv").first.click()
    return list(csv.reader(io.StringIO(Path(waiting.value.path()).read_bytes().decode())))


# --- pictures ---------------------------------------------------------------------------------


#: References of an enlarged copy to anything but its own parts.
_LOST_REFERENCES = """svg => {
  const marks = svg.outerHTML.match(/(?<=href="#|url\\(#|url\\(&quot;#)[^)"&]+/g) || [];
  const own = new Set([...svg.querySelectorAll("[id]")].map((part) => part.id));
  const shared = [...own].filter((id) => document.querySelectorAll("#" + id).length > 1);
  return [...shared, ...marks.filter((id) => !own.has(id))];
}"""


def saved(page: Any, button: str) -> bytes:
    with page.expect_download() as waiting:
        page.click(f"dialog {button}")
    assert len(waiting.value.suggested_filename) > len(".png") + 8
    return Path(waiting.value.path()).read_bytes()


def test_every_picture_opens_and_closes_by_keyboard(open_page: Open, single_report: Path) -> None:
    page = open_page(single_report)
    pictures = page.locator("#overview .picture")
    buttons = page.locator("#overview .picture > button.open")
    assert pictures.count() == buttons.count() > 10
    for place in range(buttons.count()):
        buttons.nth(place).focus()
        page.keyboard.press("Enter")
        large = page.locator("dialog[open] .stage > svg")
        assert large.bounding_box()["width"] > 900
        assert large.evaluate("s => { const b = s.getBBox(); return b.width > 0 && b.height > 0 }")
        assert large.evaluate(_LOST_REFERENCES) == []
        assert large.get_attribute("aria-label") in page.inner_text("dialog p")
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        assert buttons.nth(place).evaluate("b => b === document.activeElement")


def test_wheel_keys_and_drag_zoom(open_page: Open, single_report: Path) -> None:
    page = open_page(single_report)
    page.locator("#training svg").first.click()
    svg = page.locator("dialog .stage > svg")

    def view() -> list[float]:
        return [float(x) for x in svg.get_attribute("viewBox").split()]

    whole = view()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_function("w => +document.querySelector('dialog svg').getAttribute('viewBox')"
                           ".split(' ')[2] < w", arg=whole[2])  # fmt: skip
    near = view()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 100, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert view()[0] < near[0]
    assert view()[2] == near[2]
    page.keyboard.press("0")
    assert view() == whole
    page.keyboard.press("+")
    assert view()[2] < whole[2]


@pytest.mark.parametrize("which", ["#training", "#distributions", "#evaluation"])
def test_saved_pictures_stand_alone_in_light_colours(
    open_page: Open, single_report: Path, which: str
) -> None:
    page = open_page(single_report, color_scheme="dark")
    picture = page.locator(f"{which} .picture svg").first
    _, _, width, height = map(float, picture.get_attribute("viewBox").split())
    picture.click()
    text = saved(page, ".svg").decode()
    tree = ET.fromstring(text)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert "rgb(28, 36, 48)" in text  # ink of the light scheme
    assert "rgb(228, 232, 238)" not in text
    assert float(tree.attrib["width"]) == width
    image = saved(page, ".png")
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (round(3 * width), round(3 * height))
    seen = page.evaluate(
        """async (bytes) => {
          const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
          const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
          canvas.getContext("2d").drawImage(bitmap, 0, 0);
          const data = canvas.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height).data;
          let dark = 0;
          for (let k = 0; k < data.length; k += 4) dark += data[k] < 128;
          return [data[0], dark / (data.length / 4)];
        }""",
        list(image),
    )
    assert seen[0] == 255
    assert 0.002 < seen[1] < 0.5


def test_sheets_are_saved_as_they_are(open_page: Open, full_report: Path) -> None:
    page = open_page(full_report)
    page.locator("#made img").first.click()
    assert not page.locator("dialog .svg").is_visible()
    assert page.locator("dialog image").bounding_box()["width"] > 300
    run = full_report.parent / "runs" / "fp32--0"
    assert saved(page, ".png") == (run / "samples.png").read_bytes()


# --- the report of a fit ----------------------------------------------------------------------

fit = pytest.mark.slow  # a fit takes longer than all the others


@fit
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_the_report_of_a_fit(open_page: Open, fit_report: Path, width: int, scheme: str) -> None:
    page = open_page(fit_report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("main .picture img").count() == 5
    assert page.evaluate(_BAD_PICTURES) == []
    contrast, where = page.evaluate(_CONTRAST)
    assert contrast > 4, where
    first = background(page)
    page.select_option(".theme select", "light" if scheme == "dark" else "dark")
    assert background(page) != first
    assert fit_report.stat().st_size < 2e6


@fit
def test_tables_of_a_fit(open_page: Open, fit_report: Path) -> None:
    page = open_page(fit_report)
    means = [float(cell) for cell in column(page, "table.constants", 1)]
    page.locator("table.constants th .sort").nth(1).click()
    assert [float(cell) for cell in column(page, "table.constants", 1)] == sorted(means) != means
    with page.expect_download() as waiting:
        page.locator(".scroll:has(> table.constants) + .csv").click()
    assert waiting.value.suggested_filename == "constants.csv"
    rows = list(csv.reader(io.StringIO(Path(waiting.value.path()).read_text())))
    assert [float(row[1]) for row in rows[1:]] == sorted(means)


@fit
def test_pictures_of_a_fit_are_saved_as_they_are(open_page: Open, fit_report: Path) -> None:
    page = open_page(fit_report)
    picture = page.locator("#data img").first
    picture.click()
    assert page.locator("dialog image").bounding_box()["width"] > 600
    assert not page.locator("dialog .svg").is_visible()
    image = picture.get_attribute("src").split(",")[1]
    assert saved(page, ".png") == base64.b64decode(image)
