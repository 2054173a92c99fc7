"""The HTML report in a real Chromium, opened from disk: pointed at, clicked, typed at, and seen.

Needs Debian's `chromium` and `chromium-driver` (or CHROMIUM and CHROMEDRIVER); skips without.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lilliput.reports import write_report
from lilliput.runs.folder import RunFolder

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
DRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no Chromium here: apt-get install chromium-driver"
    ),
]

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDE, NARROW = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


class Shown:
    """The page of a run as a reader has it before them."""

    def __init__(self, driver: Any, page: Path) -> None:
        self.driver, self.page = driver, page

    def open(self, size: tuple[int, int] = WIDE, scheme: str = "light") -> Shown:
        width, height = size
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # what earlier pages left behind
        self.driver.get(self.page.resolve().as_uri())
        return self

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *given)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.all(selector)]

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def point_at(self, selector: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        self.run("arguments[0].scrollIntoView({block: 'center'})", self.one(selector))
        ActionChains(self.driver).move_to_element(self.one(selector)).perform()

    @property
    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self) -> list[str]:
        events = (json.loads(each["message"]) for each in self.driver.get_log("performance"))
        return [
            each["message"]["params"]["request"]["url"]
            for each in events
            if each["message"]["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture
def shown(chromium: Any, searched_run: RunFolder) -> Shown:
    write_report(searched_run)
    return Shown(chromium, searched_run.path / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_fits_any_screen_without_a_complaint_or_a_request(
    shown: Shown, size: tuple[int, int], scheme: str
) -> None:
    shown.open(size, scheme)
    assert len(shown.all("#chart .point")) == 3
    assert len(shown.all(".estimates .point")) == 3
    assert shown.run("document.documentElement.scrollWidth") <= size[0]
    assert shown.run("document.querySelector('#chart svg').getBoundingClientRect().right") < size[0]
    assert shown.complaints == []
    assert [url for url in shown.requests if not url.startswith(("file:", "data:"))] == []
    assert shown.run("window.hacked") is None
    dark = shown.run("getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(shown: Shown, scheme: str) -> None:
    shown.open(WIDE, scheme)
    ratios = shown.run(CONTRASTS)
    assert len(ratios) > 50
    assert [each for each in ratios if each[1] < 4.5] == []


CONTRASTS = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
    return getComputedStyle(document.documentElement).backgroundColor;
  };
  return [...document.querySelectorAll("h1,h2,h3,p,td,th,dt,dd,li,figcaption,.badge,.word,.chip")]
    .filter((each) => each.textContent.trim() && each.getClientRects().length)
    .map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(ground(each))];
      return [each.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
})()"""  # noqa: E501


def test_the_original_is_a_star_and_the_recommended_one_is_marked(shown: Shown) -> None:
    shown.open()
    assert "the original" in shown.one(".point.original").get_attribute("aria-label")
    star, best = (
        shown.run("document.querySelector(arguments[0]).querySelector('path, circle').tagName", s)
        for s in (".point.original", ".point.best")
    )
    assert (star, best) == ("path", "circle")
    assert "recommended" in shown.one(".point.best").get_attribute("aria-label")
    assert "beaten" in shown.one(".point.other").get_attribute("aria-label")
    assert shown.one("#detail h3").text == "fast.bin"


def test_pointing_at_a_file_shows_its_settings(shown: Shown) -> None:
    shown.open()
    shown.point_at(".point.other .reach")
    assert shown.one("#detail h3").text == "lossy.bin"
    told = shown.one("#detail").text
    assert "quantize(method=a|b)" in told
    assert "no gain over its parent" in told
    assert shown.one("tr.active").get_attribute("data-id") == "lossy"


def test_pointing_at_a_row_marks_its_point(shown: Shown) -> None:
    shown.open()
    shown.point_at("tr[data-id=original] td")
    assert shown.one(".point.active").get_attribute("data-id") == "original"


def test_clicking_a_point_leads_to_its_row(shown: Shown) -> None:
    shown.open()
    shown.one(".point.original .reach").click()
    assert shown.run("document.activeElement.dataset.id") == "original"


def test_the_chart_answers_to_the_keyboard(shown: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    shown.open()
    # One stop of the tab key, at the recommended file; arrows go by the axis.
    assert len(shown.all("#chart [tabindex='0']")) == 1
    shown.run("document.querySelector('input[name=axis]').focus()")
    shown.keys(Keys.TAB)
    assert shown.run("document.activeElement.dataset.id") == "fast"
    shown.keys(Keys.ARROW_RIGHT)
    assert shown.one("#detail h3").text == "lossy.bin"
    shown.keys(Keys.END)
    assert shown.one("#detail h3").text == "original.bin"
    shown.keys(Keys.ARROW_RIGHT)
    assert shown.one("#detail h3").text == "original.bin"
    shown.keys(Keys.HOME, Keys.ENTER)
    assert shown.run("document.activeElement.matches('tr[data-id=fast]')") is True


def test_everything_that_can_be_used_can_be_tabbed_to_and_has_a_name(shown: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    shown.open()
    met = []
    for _ in range(60):
        shown.keys(Keys.TAB)
        at = shown.run(
            "(e => e === document.body ? '' : `${e.tagName.toLowerCase()} ${"
            "e.ariaLabel || e.labels?.[0]?.textContent || e.textContent.slice(0, 40)"
            " || 'nameless'}`)(document.activeElement)"
        )
        if not at:
            break
        met.append(at.strip())
    assert met[0].startswith("a Skip to the table")
    assert not [each for each in met if each.endswith("nameless")]
    assert [each for each in met if each.startswith("button latency")]
    assert [each for each in met if each.startswith("g fast.bin")]


def test_the_axis_changes_to_size(shown: Shown) -> None:
    shown.open()
    before = float(shown.one(".point.other .reach").get_attribute("cx"))
    shown.one("input[value=bytes]").click()
    assert "against size" in shown.one("#chart svg").get_attribute("aria-label")
    assert abs(float(shown.one(".point.other .reach").get_attribute("cx")) - before) > 5
    assert "size" in shown.one("#chart svg").text


@pytest.mark.parametrize(
    ("column", "first", "last"),
    [("latency", "fast.bin", "original.bin"), ("size", "fast.bin", "original.bin")],
)
def test_tables_sort_both_ways(shown: Shown, column: str, first: str, last: str) -> None:
    shown.open()
    names = lambda: [text.strip("★· ") for text in shown.texts("tr[data-id] th")]  # noqa: E731
    (button,) = (b for b in shown.all("tr:has(button) button") if b.text == column)
    button.click()
    head = button.find_element("xpath", "..")
    assert head.get_attribute("aria-sort") == "ascending"
    assert (names()[0], names()[-1]) == (first, last)
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    assert (names()[0], names()[-1]) == (last, first)


def test_a_member_that_is_clicked_stays_with_the_lines_that_ask_for_it(shown: Shown) -> None:
    shown.open()
    assert "not trained" in shown.one(".estimates .point.member").get_attribute("aria-label")
    member, other = (
        f".estimates .point[data-id='{name}'] .reach" for name in ("0000aaaa", "1111bbbb")
    )
    shown.point_at(member)
    shown.one(member).click()
    shown.point_at(other)
    detail = shown.one(".estimates").find_element("xpath", "ancestor::section").text
    assert '- search_any:\n      deliver: ["0000aaaa"]' in detail
    assert f"lilliput resume {shown.page.parent}" in detail
    assert "6 of 8 channels, weights 4 bits" in detail


def test_members_answer_to_the_keyboard_and_lead_to_their_files(shown: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    shown.open()
    assert len(shown.all(".estimates [tabindex='0']")) == 1
    shown.run("document.querySelector('.estimates [tabindex=\"0\"]').focus()")
    shown.keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert shown.run("document.activeElement.dataset.id") == "1111bbbb"
    told = shown.one(".estimates").find_element("xpath", "ancestor::section").text
    assert "measured: lossy.bin, loss 3.00 [2.99, 3.01]" in told
    shown.keys(Keys.TAB, Keys.ENTER)
    assert shown.run("document.activeElement.dataset.id") == "lossy"


def test_what_was_measured_of_a_member_is_drawn_where_it_has_that_cost(shown: Shown) -> None:
    shown.open()
    assert len(shown.all(".estimates .measured circle")) == 0  # it is not packed: no coded bytes
    shown.one("input[value=macs]").click()
    assert len(shown.all(".estimates .measured circle")) == 1
    assert "against ≈ macs" in shown.one(".estimates svg").get_attribute("aria-label")


def test_the_chart_follows_the_window(shown: Shown) -> None:
    width = "document.querySelector('#chart svg').getBoundingClientRect().width"
    wide = shown.open().run(width)
    metrics = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    shown.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wait_until(lambda: shown.run(width) < min(wide, 420))


def test_it_prints(shown: Shown) -> None:
    shown.open(WIDE, "dark")
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert shown.run("getComputedStyle(document.documentElement).color") == "rgb(0, 0, 0)"
    printed = shown.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 10_000
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def wait_until(met: Callable[[], bool]) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(None, 5, poll_frequency=0.05).until(lambda _: met())
