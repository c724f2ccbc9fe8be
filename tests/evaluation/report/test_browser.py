"""The page in a real browser: Chromium without a window. Skips where Chromium, its driver or selenium are missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.evaluation.report.conftest import Written

BINARIES = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "chromedriver": ("chromedriver",)}
ARGUMENTS = (
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1280,1600",
)


def _binary(name: str) -> str:
    found = next((path for known in BINARIES[name] if (path := shutil.which(known))), None)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install chromium chromium-driver)")
    return found


@pytest.fixture(scope="module")
def browser(written: Written) -> Iterator[Any]:
    """Chromium with the page, from disk."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install selenium)")
    options = webdriver.ChromeOptions()
    options.binary_location = _binary("chromium")
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_binary("chromedriver")))
    try:
        driver.set_script_timeout(30)
        driver.get((written.folder / "index.html").resolve().as_uri())
        yield driver
    finally:
        driver.quit()


def test_page_loads_without_errors_and_fits_its_window(browser: Any) -> None:
    assert browser.get_log("browser") == []
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wide) == 0


def test_sorting_sorts_and_reverses(browser: Any) -> None:
    def column(k: int) -> list[float]:
        rows = (
            "return [...document.querySelectorAll('#metrics tbody tr')].map(r => +r.cells[arguments[0]].dataset.value)"
        )
        values: list[float] = browser.execute_script(rows, k)
        return values

    headings = browser.find_elements("css selector", "#metrics thead th")
    for k, heading in enumerate(headings[1:], 1):
        if "RMSE" in heading.text:  # lower is better: the best comes first
            heading.find_element("tag name", "button").click()
            assert column(k) == sorted(column(k)) and heading.get_attribute("aria-sort") == "ascending"
            heading.find_element("tag name", "button").click()
            assert column(k) == sorted(column(k), reverse=True) and heading.get_attribute("aria-sort") == "descending"
            assert column(k)[0] != column(k)[1]
            return
    raise AssertionError("no column of RMSE")


def test_every_sound_decodes_to_its_length(browser: Any) -> None:
    lengths = browser.execute_async_script(
        "const done = arguments[0];"
        "Promise.all(report.players.flatMap(p => p.versions.map(async v =>"
        " [p.seconds, (await report.sound(p.utterance, +v.dataset.source)).duration])))"
        ".then(done, e => done(String(e)))"
    )
    assert len(lengths) == 5 * 3
    for expected, decoded in lengths:
        assert decoded == pytest.approx(expected, abs=1e-3)


def test_switching_keeps_the_position_and_one_version_is_heard(browser: Any) -> None:
    state = browser.execute_async_script(
        "const done = arguments[0], p = report.players[0];"
        "const gains = () => Object.fromEntries([...p.nodes].map(([k, v]) => [k, v.gain.gain.value]));"
        "const wait = ms => new Promise(r => setTimeout(r, ms));"
        "(async () => {"
        " p.seek(0.2); await p.play(); await wait(150);"
        " const before = p.position, first = gains();"
        " p.versions[2].click(); const after = p.position; await wait(60);"
        " const second = gains(), later = p.position; p.pause();"
        " done({before, after, later, first, second, heard: p.box.querySelector('[aria-checked=true]').textContent});"
        "})().catch(e => done(String(e)))"
    )
    assert state["before"] >= 0.2
    assert 0.0 <= state["after"] - state["before"] < 0.03  # the time of the click itself
    assert state["later"] > state["after"]
    assert state["first"] == {"0": 1, "1": 0, "2": 0}
    assert state["second"]["2"] > 0.99 and state["second"]["0"] < 0.01
    assert state["heard"] == "dkf"


def test_difference_is_drawn_of_the_chosen_pair(browser: Any) -> None:
    drawn = browser.execute_async_script(
        "const done = arguments[0], box = report.players[0].box, canvas = box.querySelector('canvas');"
        "const pixels = () => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];"
        "const until = name => new Promise(r => { const t = setInterval(() => {"
        " if (canvas.dataset.drawn === name) { clearInterval(t); r(pixels()); } }, 20); });"
        "(async () => { box.scrollIntoView(); const unlike = new Set(await until('1-0'));"
        " box.querySelector('.first').value = '0'; box.querySelector('.first').dispatchEvent(new Event('change'));"
        " const same = new Set(await until('0-0')); done([unlike.size, [...same]]); })()"
    )
    assert drawn[0] > 20
    assert sorted(drawn[1]) == [247, 255], "a spectrogram less itself is the colour of zero"


def test_dot_plays_its_utterance_in_the_version_of_its_row(browser: Any) -> None:
    browser.execute_script(
        "document.querySelector('#metrics tbody .dot.audible').dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    opened = browser.execute_async_script(
        "const done = arguments[0]; const t = setInterval(() => { if (report.bar?.playing) { clearInterval(t);"
        " const dot = document.querySelector('#metrics tbody .dot.audible'), row = dot.closest('tr');"
        " const wanted = [+dot.dataset.utterance, row.querySelector('.run').textContent];"
        " const heard = report.bar.box.querySelector('[aria-checked=true]').textContent;"
        " report.bar.pause(); done([wanted, [report.bar.utterance, heard]]); } }, 20)"
    )
    assert opened[0] == opened[1]


def test_keys_play_choose_and_seek(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    player = browser.find_element("css selector", "main .player")
    browser.execute_script("report.players[0].seek(0)")
    player.send_keys("1")
    player.send_keys(Keys.ARROW_RIGHT)
    position, source = browser.execute_script("return [report.players[0].position, report.players[0].source]")
    assert (position, source) == (pytest.approx(0.5), 1)
