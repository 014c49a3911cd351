"""Which panels a dashboard has: six, or ten with drift; each falls back to a word; nothing raises."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainhooks.views import chart, page
from trainhooks.views.panel import MAX_POINTS, best_row, compose

STEPS = 200


@pytest.fixture
def metrics() -> pd.DataFrame:
    step = np.arange(STEPS)
    return pd.DataFrame(
        {
            "step": step,
            "train/loss": 3.0 / (1 + step / 50),
            "val/loss": np.where(step % 40 == 39, np.abs(step - 119) / 100 + 1, np.nan),
            "learning_rate": 1e-3,
            "tokens_per_second": 900.0,
            "grad_norm": 1.0,
            "active_seconds": step * 2.0,
            "eta_seconds": (STEPS - step) * 2.0,
        }
    )


@pytest.fixture
def drift() -> pd.DataFrame:
    return pd.DataFrame({"step": [0, 100], "length/psi": [0.0, 0.3], "length/js": [0.0, 0.1], "tokens/psi": [0.0, 0.1]})


def test_six_panels_and_ten_with_drift(metrics: pd.DataFrame, drift: pd.DataFrame) -> None:
    board = compose(metrics, title="run")
    assert [panel.title for panel in board.panels] == [
        "Loss",
        "Perplexity",
        "Learning rate",
        "Throughput",
        "Gradient norm",
        "Time",
    ]
    assert all(panel.missing is None for panel in board.panels)
    assert board.panels[0].best_at == 119
    ten = compose(metrics, title="run", drift=drift)
    assert len(ten.panels) == 10
    assert [panel.missing is None for panel in ten.panels[6:]] == [True, True, False, True]


@pytest.mark.parametrize(
    ("column", "panel", "word"),
    [
        ("learning_rate", 2, "learning_rate"),
        ("tokens_per_second", 3, "samples, tokens or times"),
        ("grad_norm", 4, "grad_norm"),
    ],
)
def test_a_missing_column_leaves_a_word(metrics: pd.DataFrame, column: str, panel: int, word: str) -> None:
    board = compose(metrics.drop(columns=column), title="run")
    assert word in (board.panels[panel].missing or "")
    assert [each.missing is None for each in board.panels].count(False) == 1


def test_perplexity_is_the_exponential_of_the_loss(metrics: pd.DataFrame) -> None:
    series = compose(metrics, title="run").panels[1].series
    assert series[0].y[0] == pytest.approx(np.exp(3.0))


def test_long_series_are_thinned_and_keep_their_mean() -> None:
    n = 50_000
    values = np.sin(np.arange(n))
    (series,) = compose(pd.DataFrame({"step": np.arange(n), "grad_norm": values}), title="run").panels[4].series
    assert len(series.y) == MAX_POINTS
    assert np.mean(series.y) == pytest.approx(values.mean(), abs=1e-6)


def test_best_row_falls_back_to_the_last() -> None:
    table = pd.DataFrame({"step": [0, 1, 2], "val/loss": [2.0, 1.0, 3.0], "train/loss": [1.0, 1.0, 0.5]})
    assert best_row(table) == (1, "val/loss")
    assert best_row(table.drop(columns="val/loss")) == (2, "train/loss")
    assert best_row(table[["step"]]) == (2, "last row")
    assert best_row(pd.DataFrame()) is None


COLUMNS = ["step", "epoch", "train/loss", "val/loss", "grad_norm", "learning_rate", "active_seconds", "time", "odd"]
VALUES = st.one_of(st.none(), st.floats(), st.integers(-5, 10**12), st.text(max_size=3), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_table_makes_it_raise(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    chosen = data.draw(st.sets(st.sampled_from(COLUMNS)))
    table = pd.DataFrame({name: data.draw(st.lists(VALUES, min_size=rows, max_size=rows)) for name in sorted(chosen)})
    board = compose(table, title="run")
    assert len(board.panels) == 6


def test_page_loads_nothing_from_outside_and_escapes(metrics: pd.DataFrame) -> None:
    text = page.render(compose(metrics, title="<b>run</b>"), facts=[("path", "<script>x</script>")])
    assert "<script" not in text
    assert "&lt;b&gt;run" in text
    for outside in ("src=", 'href="http', "@import", "url(http"):
        assert outside not in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 2


def test_png_is_drawn_in_both_themes(metrics: pd.DataFrame, drift: pd.DataFrame) -> None:
    board = compose(metrics, title="run", drift=drift, resumes=[50], rewinds=[(40, 50)])
    pictures = [chart.png(board, theme=theme, dpi=40) for theme in ("light", "dark")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]
