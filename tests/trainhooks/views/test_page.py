"""The page in a real browser: it loads nothing, runs nothing, fits, is light or dark, and says what was recorded."""

import base64
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from trainhooks.views import page, summary
from trainhooks.views.panel import compose
from trainhooks.views.theme import THEMES

_SPEC = importlib.util.spec_from_file_location("views_boards", Path(__file__).with_name("boards.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
boards = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(boards)

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten panels of a run whose names were chosen by an enemy."""
    metrics = boards.metrics()
    metrics[HOSTILE] = 1.0
    drift = boards.drift().rename(columns={"tokens/js": f"{HOSTILE}/js"})
    board = compose(
        metrics, title=f"run {HOSTILE}", subtitle=HOSTILE, drift=drift, resumes=[620], rewinds=[(1440, 1700)]
    )
    names = {"metrics_df": metrics, "results": {"best_checkpoint": f"/tmp/{HOSTILE}"}}
    text = page.render(board, tables=(summary.summarise_best(names), summary.summarise_columns(metrics)))
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(text, encoding="utf-8")
    return path


def colour(css: str) -> str:
    return "rgb({}, {}, {})".format(*(int(css[at : at + 2], 16) for at in (1, 3, 5)))


@pytest.mark.parametrize("scheme", THEMES)
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_readable_as_it_is(browser: Any, file: Path, width: int, scheme: str) -> None:
    browser.open(file, width=width, scheme=scheme)
    if folder := os.environ.get("SCREENSHOTS"):
        shot = browser.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (Path(folder) / f"page-{width}-{scheme}.png").write_bytes(base64.b64decode(shot))
    requested = [event["request"]["url"] for event in browser.seen("Network.requestWillBeSent")]
    assert [url for url in requested if not url.startswith("data:")] == [file.as_uri()]
    assert browser.seen("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("getComputedStyle(document.body).backgroundColor") == colour(THEMES[scheme].back)
    assert browser.value("getComputedStyle(document.body).color") == colour(THEMES[scheme].text)
    assert browser.value("document.querySelectorAll('figure svg').length") == 10
    lefts = browser.value("[...document.querySelectorAll('figure')].map(f => Math.round(f.getBoundingClientRect().x))")
    assert len(set(lefts)) == (1 if width == 400 else 3)
    broken = browser.value(
        "[...document.querySelectorAll('table:not(:has(td:nth-child(2):last-child)) td')].filter(cell => {"
        " const range = document.createRange(); range.selectNodeContents(cell);"
        " return range.getClientRects().length != 1 }).map(cell => cell.textContent)"
    )
    assert broken == []
    assert browser.value("Math.min(...[...document.querySelectorAll('figure')].map(f => f.clientWidth))") >= 360


@pytest.mark.parametrize("scheme", THEMES)
def test_charts_have_the_scheme_s_colours(browser: Any, file: Path, scheme: str) -> None:
    browser.open(file, width=1400, scheme=scheme)
    drawn = browser.value(
        "[...new Set([...document.querySelectorAll('svg *')].flatMap("
        "e => [getComputedStyle(e).stroke, getComputedStyle(e).fill]))]"
    )
    theme = THEMES[scheme]
    expected = {colour(each) for each in (theme.text, theme.faint, theme.grid, *theme.lines)}
    assert expected <= set(drawn)
    others = THEMES["dark" if scheme == "light" else "light"]
    assert not {colour(each) for each in (others.text, others.faint, others.grid, *others.lines)} & set(drawn)


def test_ids_name_one_thing_each_and_all_are_found(browser: Any, file: Path) -> None:
    browser.open(file, width=1400, scheme="light")
    ids = browser.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    used = browser.value("[...document.querySelectorAll('use')].map(u => u.getAttribute('xlink:href').slice(1))")
    assert used
    assert set(used) <= set(ids)


def test_tables_say_what_was_recorded(browser: Any, file: Path) -> None:
    browser.open(file, width=1400, scheme="light")
    assert browser.value("[...document.querySelectorAll('h2')].map(h => h.textContent)") == ["Best model", "Recorded"]
    cells = browser.value("[...document.querySelectorAll('table')].map(t => t.innerText)")
    assert "1.37194" in cells[0]
    assert "tokens_per_second" in cells[1]
    assert HOSTILE in browser.value("document.querySelectorAll('table')[1].textContent")
    assert browser.value("document.querySelector('.key').innerText").splitlines() == [
        "★best val/loss 1.372 at step 1,499",
        "resumed",
        "trained again",
    ]


def test_names_are_text_and_never_run(browser: Any, file: Path) -> None:
    browser.open(file, width=1400, scheme="light")
    assert browser.value("document.title") == f"run {HOSTILE}"
    assert browser.value("document.querySelectorAll('script, img, iframe, object, embed').length") == 0
    assert browser.value("document.querySelector('h1').textContent") == f"run {HOSTILE}"


def test_it_is_small(file: Path) -> None:
    assert file.stat().st_size <= MOST_BYTES
