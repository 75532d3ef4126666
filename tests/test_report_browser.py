"""Does the report work where people read it: in a browser, offline, on a phone, in the dark, with a keyboard?"""

import json
import shutil
import time

import pytest

from tfprune import study

pytest.importorskip("selenium", reason="needs selenium: pip install 'tfprune[test]'")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver"
)


def _rows():
    rows = []
    for strategy, control in (("one_shot", False), ("iterative", False), ("random_channels", True)):
        for ratio in (0.0, 0.2, 0.4, 0.6, 0.8):
            for seed in range(3):
                row = {"key": f"{strategy} {ratio} {seed}", "dataset": "digits", "model": "mlp", "strategy": strategy}
                row |= {"ratio": ratio, "seed": seed, "control": control, "status": "done", "error": None}
                row |= {"accuracy": 0.9 - 0.2 * ratio**3 + seed / 1000, "ece": 0.02 + 0.01 * ratio, "nll": 0.3}
                row |= {"early_stop_epoch": 10, "compression_ratio": 1 / (1 - ratio), "theoretical_speedup": 1.0}
                row |= {f"strange/auroc_{name}": 0.7 - 0.05 * ratio for name in ("msp", "energy", "entropy")}
                row |= {"reliability_count": [0, 9], "reliability_confidence": [None, 0.8]}
                row |= {"reliability_accuracy": [None, 0.7], "layer_names": ["a_rather_long_name_of_a_layer"]}
                rows.append({**row, "layer_channels_before": [8], "layer_channels_after": [8 - int(8 * ratio)]})
    return [*rows, {**rows[-1], "key": "f", "seed": 9, "status": "failed", "error": "ValueError: " + "x" * 200}]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()), encoding="utf-8")
    return study.write_report(folder)


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    """Chromium with the report open, which records every request."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads = downloads
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def _desktop(browser):
    """Each test starts from a desktop in the light."""
    _media(browser, "light")
    _width(browser, 1200)


def _media(browser, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def _width(browser, width):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def _find(browser, selector):
    return browser.find_elements("css selector", selector)


def test_page_opens_without_errors_and_without_a_request(browser, page):
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        m["params"]["request"]["url"].split("#")[0] for m in messages if m["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}


def test_every_figure_is_there_and_has_a_name(browser):
    figures = _find(browser, "svg.figure")
    assert len(figures) == len(_find(browser, "button.save")) > 10
    for svg in figures:
        box = browser.execute_script("return arguments[0].getBBox()", svg)
        assert box["width"] > 100
    names = browser.execute_script(
        "return [...document.querySelectorAll('svg.figure')].map(s => document.getElementById("
        "s.getAttribute('aria-labelledby').split(' ')[0]).textContent)"
    )
    assert all(names)


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_page_does_not_scroll_sideways(browser, width):
    _width(browser, width)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    inside, outside = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inside <= outside == width


def _column(browser, table, index):
    script = (
        "return [...document.querySelectorAll(arguments[0] + ' tbody tr')].map(r => r.cells[arguments[1]].textContent)"
    )
    return browser.execute_script(script, table, index)


def test_tables_sort_by_a_click_and_by_the_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    names = [element.text for element in _find(browser, "#table-quality th button")]
    heading = _find(browser, "#table-quality th button")[names.index("accuracy")]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", heading)
    before = _column(browser, "#table-quality", names.index("accuracy"))
    heading.click()
    rising = [float(text.split()[0]) for text in _column(browser, "#table-quality", names.index("accuracy"))]
    assert rising == sorted(rising)
    assert rising != [float(text.split()[0]) for text in before]
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    heading.send_keys(Keys.ENTER)
    falling = [float(text.split()[0]) for text in _column(browser, "#table-quality", names.index("accuracy"))]
    assert falling == sorted(falling, reverse=True)


def test_missing_values_sort_last_both_ways(browser):
    browser.execute_script(
        "document.querySelector('#table-cost tbody tr').cells[3].outerHTML = '<td class=\"n\">–</td>'"
    )
    heading = _find(browser, "#table-cost th button")[3]
    for _ in range(2):
        browser.execute_script("arguments[0].click()", heading)
        assert _column(browser, "#table-cost", 3)[-1] == "–"


def test_dark_mode_changes_page_and_figures(browser):
    def colours():
        script = (
            "const c = (s, p) => getComputedStyle(document.querySelector(s))[p];"
            "return [c('body', 'backgroundColor'), c('body', 'color'),"
            " c('svg.figure .s0', 'color'), c('svg .ink', 'color')]"
        )
        return browser.execute_script(script)

    light = colours()
    _media(browser, "dark")
    dark = colours()
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert light[0] == "rgb(255, 255, 255)"


def test_legend_takes_a_line_out_of_every_figure_and_back(browser):
    lines = _find(browser, "svg.figure [data-series=iterative]")
    button = _find(browser, ".legend-bar button[data-line=iterative]")[0]
    browser.execute_script("arguments[0].click()", button)
    assert button.get_attribute("aria-pressed") == "false"
    display = "return arguments[0].map(e => getComputedStyle(e).display)"
    assert set(browser.execute_script(display, lines)) == {"none"}
    browser.execute_script("arguments[0].click()", button)
    assert "none" not in browser.execute_script(display, lines)


def test_table_of_detectors_shows_one_strategy_at_a_time(browser):
    from selenium.webdriver.support.select import Select

    shown = (
        "return [...document.querySelectorAll('#table-strange-auroc tbody tr')]"
        ".filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    )
    assert set(browser.execute_script(shown)) == {"one-shot"}
    Select(_find(browser, "#ood select")[0]).select_by_visible_text("iterative")
    assert set(browser.execute_script(shown)) == {"iterative"}
    Select(_find(browser, "#ood select")[0]).select_by_visible_text("all")
    assert len(browser.execute_script(shown)) == 9


def test_figure_is_saved_as_a_file_that_stands_alone(browser):
    browser.execute_script("document.querySelector('button.save[data-figure=accuracy]').click()")
    file = browser.downloads / "accuracy.svg"
    for _ in range(100):
        if file.exists():
            break
        time.sleep(0.05)
    text = file.read_text(encoding="utf-8")
    assert 'xmlns="http://www.w3.org/2000/svg"' in text
    assert ".s0{color:" in text
    assert "var(" not in text
    browser.get(file.as_uri())
    try:
        words = _find(browser, "g.legend text")
        assert [element.text for element in words] == ["one-shot", "iterative", "random channels"]
        right = max(element.rect["x"] + element.rect["width"] for element in words)
        assert right < _find(browser, "svg")[0].rect["width"]
    finally:
        browser.back()


def test_points_say_their_numbers_under_the_pointer(browser):
    from selenium.webdriver import ActionChains

    mark = _find(browser, "#accuracy .mark")[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    tip = _find(browser, "#tip")[0]
    for shift in (0, 1) * 20:  # a scroll that is still going on hides the words
        ActionChains(browser).move_to_element_with_offset(mark, shift, 0).perform()
        if tip.is_displayed():
            break
        time.sleep(0.05)
    assert tip.is_displayed()
    assert "3 seeds" in tip.text
