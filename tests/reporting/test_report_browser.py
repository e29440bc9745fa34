"""The report as a reader meets it, in a real browser: it opens, answers, and can be read everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.reporting.webpage.document import write_page
from cradlevae.reporting.webpage.effects import effect_map, packed_effects
from cradlevae.reporting.webpage.sections import Content, sections_of

SECTIONS = [
    "Verdict", "Effects", "Cells", "Damage", "Quality control", "Scores", "Training", "Technical record",
]  # fmt: skip
NARROW = 420

CONTRAST = """
const channel = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parts = text => text.match(/[\\d.]+/g).map(Number);
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = parts(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
const walker = document.createTreeWalker(document.querySelector('.frame'), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.getClientRects().length || element.closest('svg, .plot')) continue;
  const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(1)}`);
}
return poor;
"""
"""Texts of the page whose contrast with what is behind them is below 4.5 (WCAG AA)."""

CLIPPED = """
return [...document.querySelectorAll('main *')].filter(element => {
  const style = getComputedStyle(element);
  return element.getClientRects().length && !element.closest('.plot, select, option')
    && element.clientWidth && element.scrollWidth > element.clientWidth + 1 && style.overflowX !== 'visible';
}).map(element => element.outerHTML.slice(0, 120));
"""
"""Elements that cut off some of what they hold."""

READY = "return document.documentElement.dataset.ready === 'true'"
WAIT = 120.0
"""Seconds that the page is given to do something: machines that test several things at once are slow."""

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Debian's Chromium with an empty profile; skipped where there is none, except where one is required."""
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        missing = "chromium or chromedriver is not installed (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CRADLEVAE_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        driver.set_script_timeout(WAIT)
        yield driver
    finally:
        driver.quit()


class Page:
    """A page in the browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        self.driver = driver
        self.path = path

    def open(self, width: int = 1400, *, scheme: str = "light", media: str = "screen") -> Page:
        """Load the page anew in a window of some width."""
        self.driver.get("about:blank")
        self.logs()
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.driver.get(self.path.as_uri())
        self.until(lambda: self.run(READY))
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, WAIT).until(lambda _: condition())

    def one(self, selector: str) -> Any:
        """The element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def rows(self, table: str = "#effect-table") -> list[list[str]]:
        """Texts of the cells of the rows that a table shows."""
        script = "return [...document.querySelectorAll(arguments[0])].map(row => [...row.cells].map(c => c.innerText))"
        rows: list[list[str]] = self.run(script, f"{table} tbody tr")
        return rows

    def logs(self) -> tuple[list[str], list[str]]:
        """Messages of the console that warn or worse, and addresses of the network, since the last call."""
        console = [str(entry["message"]) for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        addresses = [
            str(event["params"]["request"]["url"]) for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return console, [address for address in addresses if address.startswith(("http", "ws", "ftp"))]


@pytest.fixture(scope="module")
def answer(model: cv.CradleVAE, simulated: ad.AnnData) -> Any:
    return model.effects(sorted(set(simulated.obs["perturbation"]) - {"control"}))


@pytest.fixture(scope="module")
def path(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adata = simulated.copy()
    cv.annotate_qc(adata, criteria=["umi", "genes"], key_added="judged", max_fail_share=1.0)
    scores = cv.evaluate(model, adata, denoiser=False)
    return cv.report(model, adata, tmp_path_factory.mktemp("page") / "report.html", scores)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def wide(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page on a wide screen, loaded once, in a browser of its own; tests leave its filters as they were."""
    with chromium(tmp_path_factory.mktemp("own")) as driver:
        yield Page(driver, path).open()


def set_field(page: Page, name: str, value: str) -> None:
    """Fill in a field of the filters, and wait for the table."""
    script = """
        const field = document.getElementById('effect-filter').elements[arguments[0]];
        if (field.type === 'checkbox') field.checked = arguments[1] === 'on'; else field.value = arguments[1];
        field.dispatchEvent(new Event('input', { bubbles: true }));
    """
    page.run(script, name, value)


@pytest.fixture
def table(wide: Page) -> Iterator[Page]:
    """The table of effects with all effects."""
    set_field(wide, "level", "1")
    wide.until(lambda: "660" in wide.one("#effect-table_info").text)
    yield wide
    wide.one("#effect-filter [type=reset]").click()


def test_it_opens_without_errors_and_loads_nothing(driver: Any, path: Path) -> None:
    page = Page(driver, path).open()
    assert page.logs() == ([], [])
    assert [link.text for link in driver.find_elements("css selector", "header ~ nav a")] == SECTIONS


def test_the_table_holds_the_models_numbers(table: Page, answer: Any) -> None:
    set_field(table, "perturbation", "A")
    set_field(table, "gene", answer.var_names[3])
    rows = table.until(lambda: (rows := table.rows()) and len(rows) == 1 and rows)
    [[perturbation, gene, effect, interval, lfsr, _, rank, _]] = rows
    assert (perturbation, gene) == ("A", answer.var_names[3])
    of_gene = answer["A", gene]
    numbers = [float(number.replace("−", "-")) for number in re.findall(r"−?[\d.]+", f"{effect} {interval}")]
    true = [of_gene.X.item(), of_gene.layers["low"].item(), of_gene.layers["high"].item()]
    assert np.allclose(numbers, true, atol=0.0075)
    assert 0 < float(lfsr) <= 0.5
    assert 1 <= int(rank) <= 60


def test_search_finds_a_gene_under_all_perturbations(table: Page, answer: Any) -> None:
    gene = str(answer.var_names[7])
    set_field(table, "gene", gene.lower())
    rows = table.until(lambda: (rows := table.rows()) and len(rows) == answer.n_obs and rows)
    assert {row[1] for row in rows} == {gene}
    assert {row[0] for row in rows} == set(answer.obs_names)
    set_field(table, "gene", "no such gene")
    table.until(lambda: "No effect passes" in table.rows()[0][0])


def test_headings_sort_by_click_and_by_keyboard(table: Page) -> None:
    def effects() -> list[float]:
        return [float(row[2].replace("−", "-")) for row in table.rows()]

    heading = table.one("#effect-table thead th:nth-child(3)")
    heading.click()
    table.until(lambda: heading.get_attribute("aria-sort") == "ascending")
    assert effects() == sorted(effects())
    table.run("arguments[0].querySelector('[tabindex]').focus()", heading)
    table.driver.switch_to.active_element.send_keys("\ue007")
    table.until(lambda: heading.get_attribute("aria-sort") == "descending")
    assert effects() == sorted(effects(), reverse=True)
    assert effects()[0] > 0


def test_filters_filter(table: Page) -> None:
    set_field(table, "direction", "-1")
    table.until(lambda: all(not row[2].strip("−0.") or row[2].startswith("−") for row in table.rows()))
    set_field(table, "best", "1")
    table.until(lambda: {row[6] for row in table.rows()} == {"1"})
    set_field(table, "level", "0.01")
    rates = lambda: [row[4].lstrip("<").replace("−", "-") for row in table.rows() if len(row) > 1]  # noqa: E731
    table.until(lambda: all(float(rate) <= 0.01 for rate in rates()))


def test_plots_draw_and_follow_the_table(table: Page, answer: Any) -> None:
    for plot in ("volcano", "gene", "map", "cells"):
        assert table.run("return document.querySelectorAll(arguments[0]).length", f"#plot-{plot} .main-svg") > 0
    points = "return document.querySelectorAll('#plot-volcano .scatterlayer .point').length"
    assert table.run(points) == answer.n_vars
    set_field(table, "perturbation", "B")
    table.until(lambda: {row[0] for row in table.rows()} == {"B"})
    table.one("#effect-table button[data-row]").click()
    assert table.one("#volcano-saying").text.startswith("B,")
    gene = table.rows()[0][1].split()[0]
    table.one("#effect-table button[data-gene]").click()
    assert table.one("#gene-saying").text.startswith(f"{gene}:")
    table.run("const field = document.getElementById('gene-name'); field.value = 'nonsense';"
              "field.dispatchEvent(new Event('change'))")  # fmt: skip
    assert "no gene nonsense" in table.one("#gene-saying").text


def test_cells_are_shown_by_perturbation_and_by_what_befell_them(wide: Page) -> None:
    names = wide.run("return [...document.querySelectorAll('#plot-cells .legendtext')].map(text => text.textContent)")
    assert "control" in names
    script = """
        const form = document.getElementById('cells-choice');
        form.elements.colour.value = 'quality control';
        form.elements.colour.dispatchEvent(new Event('change', { bubbles: true }));
        return [...document.querySelectorAll('#plot-cells .legendtext')].map(text => text.textContent);
    """
    assert sorted(wide.run(script)) == ["failed", "passing"]


def test_sections_are_reached_by_links_and_by_keyboard(driver: Any, path: Path) -> None:
    page = Page(driver, path).open()
    driver.switch_to.active_element.send_keys("\ue004")
    skip = driver.switch_to.active_element
    assert skip.text == "Skip to the content"
    assert skip.rect["x"] >= 0
    outlines = []
    for _ in SECTIONS:
        driver.switch_to.active_element.send_keys("\ue004")
        link = driver.switch_to.active_element
        outlines.append((link.text, link.value_of_css_property("outline-style")))
    assert outlines == [(name, "solid") for name in SECTIONS]
    driver.switch_to.active_element.send_keys("\ue007")
    page.until(lambda: page.run("return document.getElementById('technical-record').getBoundingClientRect().top") < 900)
    for link in driver.find_elements("css selector", "header ~ nav a"):
        assert page.run("return document.querySelector(arguments[0].hash + ' h2').textContent", link) == link.text


@pytest.mark.parametrize("width", [NARROW, 800, 1400])
def test_nothing_overflows(driver: Any, path: Path, width: int) -> None:
    page = Page(driver, path).open(width)
    page.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.run("return document.documentElement.scrollWidth") <= width
    drawn = page.run("return [...document.querySelectorAll('.plot')].map(p => p.querySelector('svg').clientWidth)")
    assert max(drawn) <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(driver: Any, path: Path, scheme: str) -> None:
    page = Page(driver, path).open(scheme=scheme)
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
    page.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    assert page.run(CONTRAST) == []


def test_paper_cuts_nothing_off(driver: Any, path: Path) -> None:
    page = Page(driver, path).open(718, media="print")
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert page.run(CLIPPED) == []
    assert page.run("return document.documentElement.scrollWidth") <= 718
    assert not page.one("nav").is_displayed()
    widths = page.run("return [...document.querySelectorAll('.plot .main-svg')].map(plot => plot.clientWidth)")
    assert max(widths) <= 718


def test_figures_enlarge_and_close(driver: Any, path: Path) -> None:
    wide = Page(driver, path).open()
    button = wide.one("figure button")
    wide.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'}); arguments[0].focus()", button)
    wide.driver.switch_to.active_element.send_keys("\ue007")
    dialog = wide.one("#enlarged")
    wide.until(lambda: dialog.get_attribute("open"))
    assert dialog.find_element("css selector", "img").get_attribute("alt") == button.find_element(
        "css selector", "img"
    ).get_attribute("alt")
    wide.driver.switch_to.active_element.send_keys("\ue007")  # the button that closes has the focus
    wide.until(lambda: not dialog.get_attribute("open"))
    assert wide.driver.switch_to.active_element == button


EVIL = "<script>document.title = 'caught'</script><b>&amp;"


def test_names_are_shown_and_never_executed(driver: Any, tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    obs = pd.DataFrame({"n_cells": [5, 0, 7]}, index=[EVIL, "B", "C"])
    layers = {"low": x - 1, "high": x + 1, "lfsr": np.full(x.shape, 0.001, dtype=np.float32)}
    var = pd.DataFrame(index=[EVIL, "g1", "g2", "g3"])
    effects = ad.AnnData(x, obs=obs, var=var, layers=layers, uns={"effects": {"credible": 0.9}})
    symbols = list(var.index)
    data = {"effects": packed_effects(effects, symbols, list(obs.index)), "map": effect_map(effects, symbols)}
    content = Content(None, EVIL, {}, {EVIL: pd.DataFrame({EVIL: [EVIL]})}, [(EVIL, EVIL)], EVIL, data, {EVIL: EVIL})
    path = write_page(tmp_path / "evil.html", title=EVIL, lead=EVIL, sections=sections_of(content), data=data)
    page = Page(driver, path).open()
    assert page.run("return document.title") == EVIL
    assert page.one("h1").text == EVIL
    assert EVIL in {row[0] for row in page.rows()}
    assert EVIL in {row[1].removesuffix(" target") for row in page.rows()}
    assert page.one("#volcano-saying").text.startswith(("C,", "B,", EVIL))
    assert page.logs() == ([], [])
