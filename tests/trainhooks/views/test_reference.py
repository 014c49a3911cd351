"""The dashboard against its reference pictures, which a person has looked at; and what the comparison must notice."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainhooks.views import chart
from trainhooks.views.board import Board
from trainhooks.views.theme import THEMES

_AT = Path(__file__).with_name("reference.py")
_SPEC = importlib.util.spec_from_file_location("views_reference", _AT)
assert _SPEC is not None
assert _SPEC.loader is not None
reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(reference)


@pytest.mark.parametrize("name", reference.PICTURES)
def test_the_dashboard_looks_as_it_did(name: str) -> None:
    board, theme = reference.PICTURES[name]
    assert reference.complaints(name, reference.picture(board(), theme)) == []


def test_references_are_small_and_none_is_left_over() -> None:
    files = {path.stem: path.stat().st_size for path in reference.FOLDER.iterdir()}
    assert set(files) == set(reference.PICTURES)
    assert max(files.values()) <= reference.MOST_BYTES


def test_another_hinting_of_all_text_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "_SETTINGS", {**chart._SETTINGS, "text.hinting": "no_hinting"})
    for name in ("stopped-light", "ten-dark"):
        board, theme = reference.PICTURES[name]
        fresh = reference.picture(board(), theme)
        assert reference.differences(name, fresh)[1].max() > 15  # it was drawn otherwise
        assert reference.complaints(name, fresh) == []


def _without(**changes: object) -> Callable[[Board], Board]:
    return lambda board: replace(board, **changes)  # type: ignore[arg-type]


def _first_panel(**changes: object) -> Callable[[Board], Board]:
    return lambda board: replace(board, panels=(replace(board.panels[0], **changes), *board.panels[1:]))  # type: ignore[arg-type]


FAULTS: dict[str, Callable[[Board], Board]] = {
    "a panel is gone": lambda board: replace(board, panels=board.panels[:-1]),
    "a panel has lost its data": _first_panel(series=(), missing="no loss was recorded"),
    "the best mark is gone": _first_panel(best_at=None),
    "one resume is gone": lambda board: replace(board, resumes=board.resumes[:1]),
    "the rewind is gone": _without(rewinds=()),
    "the best is not named": _without(best=None),
    "the run is not named": _without(title=""),
    "a panel has no title": _first_panel(title=""),
    "an axis is logarithmic": _first_panel(is_log=True),
    "a line is gone": lambda board: _first_panel(series=board.panels[0].series[:1])(board),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault: str) -> None:
    board = FAULTS[fault](reference.boards.stopped())
    assert reference.complaints("stopped-light", reference.picture(board, "light"))


@pytest.mark.parametrize("line", range(4))
def test_another_colour_is_noticed(line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = THEMES["dark"]
    lines = [*before.lines]
    lines[line] = before.lines[line - 1]
    monkeypatch.setitem(THEMES, "dark", replace(before, lines=tuple(lines)))  # type: ignore[arg-type]
    assert reference.complaints("ten-dark", reference.picture(reference.boards.ten(), "dark"))


def test_a_star_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "_best", lambda panel: [])
    assert reference.complaints("six-light", reference.picture(reference.boards.six(), "light"))


def test_the_caller_s_matplotlib_settings_do_not_show() -> None:
    import matplotlib as mpl
    import matplotlib.style

    with mpl.style.context(["dark_background", {"font.size": 20, "lines.linewidth": 9, "axes.grid": False}]):
        fresh = reference.picture(reference.boards.six(), "light")
        assert mpl.rcParams["font.size"] == 20
    assert reference.complaints("six-light", fresh) == []
