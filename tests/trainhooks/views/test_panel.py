"""Which panels a dashboard has: up to six, up to ten with drift; an empty one takes no room; nothing raises."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from trainhooks.views import chart, page
from trainhooks.views.board import Board
from trainhooks.views.panel import best_row, compose
from trainhooks.views.series import MAX_POINTS
from trainhooks.views.table import Table
from trainhooks.views.theme import THEMES

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
    assert [panel.title for panel in ten.panels[6:]] == ["Input length drift", "Vocabulary drift", "Distance of inputs"]
    assert ten.absent == ("Label and teacher drift",)


@pytest.mark.parametrize(
    ("column", "title"),
    [("learning_rate", "Learning rate"), ("tokens_per_second", "Throughput"), ("grad_norm", "Gradient norm")],
)
def test_a_panel_without_data_takes_no_room_and_is_named(metrics: pd.DataFrame, column: str, title: str) -> None:
    board = compose(metrics.drop(columns=column), title="run")
    assert len(board.panels) == 5
    assert title not in [panel.title for panel in board.panels]
    assert board.absent == (title,)
    assert f"not recorded: {title}" in page.render(board)


def _figure(board: Board) -> Figure:
    with chart._settings():
        figure = chart.draw(board, THEMES["light"])
        FigureCanvasAgg(figure).draw()
    return figure


def test_no_text_overlaps_another() -> None:
    """Values of every size beside the axes: their numbers meet neither each other nor a title, a unit or a name."""
    step = np.arange(3_000_000, 3_002_000)
    for scale in (1.2345e-5, 1.0, 123_456.0):
        columns = ("train/loss", "val/loss", "learning_rate", "tokens_per_second", "grad_norm", "active_seconds")
        ramp = np.linspace(-scale, scale, len(step))
        table = pd.DataFrame({"step": step, **dict.fromkeys(columns, ramp), "eta_seconds": ramp[::-1]})
        windows = pd.DataFrame({"step": step[::100], "labels/psi": 0.1, "logprobs/psi": 0.2, "tokens/js": 0.1})
        figure = _figure(compose(table, title="run", subtitle="closed", config="lr 0.1", drift=windows))
        boxes = [(each.get_text(), each.get_window_extent()) for each in _texts(figure)]
        assert len(boxes) > 60
        met = [(a, b) for (a, one), (b, other) in itertools.combinations(boxes, 2) if one.overlaps(other)]
        assert met == [], scale
        width, height = figure.canvas.get_width_height()
        assert [text for text, box in boxes if box.x0 < 0 or box.x1 > width or box.y0 < 0 or box.y1 > height] == []


def _texts(figure: Figure) -> list[Text]:
    """Return what is written: of ticks, those within the axes alone."""
    axes = [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]
    of_ticks = {id(label) for axis in axes for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)}
    of_ticks |= {id(label) for axis in axes for tick in axis.get_minor_ticks() for label in (tick.label1, tick.label2)}
    drawn = {id(tick.label1) for axis in axes for tick in axis._update_ticks()}  # type: ignore[attr-defined]
    texts = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()]
    return [each for each in texts if isinstance(each, Text) and (id(each) not in of_ticks or id(each) in drawn)]


@pytest.mark.parametrize("top", [0.7, 3.1, 24.0, 999.0, 2_400.0, 7.7e6])
def test_ticks_are_round(top: float) -> None:
    table = pd.DataFrame({"step": np.linspace(0, 2_400, 50).astype(int), "learning_rate": np.linspace(0, top, 50)})
    (axes,) = _figure(compose(table, title="run")).axes
    for ticks in (axes.get_xticks(), axes.get_yticks()):
        step = ticks[1] - ticks[0]
        assert float(f"{step:.6e}"[0]) in (1.0, 2.0, 5.0)
        assert step / 10 ** np.floor(np.log10(step)) == pytest.approx(float(f"{step:.6e}"[0]))


def test_noise_is_drawn_as_nothing(metrics: pd.DataFrame) -> None:
    """2e-5 around one, and a distance of 2e-5 bits: lines in the middle and at the bottom, no mountains."""
    noise = np.random.default_rng(1).normal(0, 1e-5, STEPS)
    table = metrics[["step"]].assign(**{"train/loss": 2.0 + noise})
    axes, *_ = _figure(compose(table, title="run")).axes
    low, high = axes.get_ylim()
    assert high - low > 0.03
    near = pd.DataFrame({"step": [0, 100, 200], "tokens/js": [0.0, 2e-5, 1e-5]})
    *_, axes = _figure(compose(table, title="run", drift=near)).axes
    assert axes.get_ylim() == (0.0, pytest.approx(0.0575))
    # What is a change stays one.
    low, high = _figure(compose(metrics[["step", "train/loss"]], title="run")).axes[0].get_ylim()
    assert (low, high) == (pytest.approx(0.5, abs=0.2), pytest.approx(3.1, abs=0.2))


def test_the_number_beside_a_line_is_its_last_and_has_a_unit(metrics: pd.DataFrame) -> None:
    metrics["tokens_per_second"] = np.linspace(800, 900, STEPS)
    figure = _figure(compose(metrics, title="run"))
    names = {text.get_text() for axes in figure.axes if (legend := axes.get_legend()) for text in legend.get_texts()}
    assert "validation 1.8" in names
    assert any(re.fullmatch(r"train 0\.602\d* \(smoothed 0\.\d+\)", name) for name in names), names
    assert any(re.fullmatch(r"900 tokens/s \(smoothed \d+\.?\d*\)", name) for name in names), names
    assert {"6.63 min trained", "2 s left"} <= names


def test_perplexity_is_the_exponential_of_the_loss(metrics: pd.DataFrame) -> None:
    series = compose(metrics, title="run").panels[1].series
    assert series[0].y[0] == pytest.approx(np.exp(3.0))


@pytest.mark.parametrize("n", [MAX_POINTS + 1, 1_499, 50_000, 50_023])
def test_long_series_are_thinned_and_keep_each_spike(n: int) -> None:
    values = np.random.default_rng(1).normal(size=n)
    values[[n // 3, n - 7]] = 50.0, -40.0
    (series,) = compose(pd.DataFrame({"step": np.arange(n), "grad_norm": values}), title="run").panels[0].series
    assert len(series.y) <= MAX_POINTS
    drawn = dict(zip(series.x, series.y, strict=True))
    assert (drawn[n // 3], drawn[n - 7]) == (50.0, -40.0)
    assert (drawn[0], drawn[n - 1]) == (values[0], values[-1])
    assert list(series.x) == sorted(drawn)
    assert all(values[int(at)] == value for at, value in drawn.items())


def test_the_running_mean_does_not_lag() -> None:
    falling = compose(pd.DataFrame({"step": range(500), "train/loss": np.arange(500.0, 0.0, -1.0)}), title="run")
    (series,) = falling.panels[0].series
    assert series.smooth is not None
    assert series.smooth[250] == pytest.approx(series.y[250], abs=1)


def test_hours_are_hours_and_seconds_seconds() -> None:
    for seconds, unit, last in (
        (90, "seconds", 90.0),
        (900, "minutes", 15.0),
        (9e3, "hours", 2.5),
        (9e5, "days", 10.42),
    ):
        table = pd.DataFrame({"step": [0, 1], "active_seconds": [0.0, seconds]})
        (panel,) = compose(table, title="run").panels
        assert (panel.y_label, panel.series[0].last) == (unit, pytest.approx(last, abs=0.01))


def test_resumes_are_steps_and_not_epochs(drift: pd.DataFrame) -> None:
    by_epoch = compose(pd.DataFrame({"epoch": [0, 1, 2], "train/loss": [3.0, 2.0, 1.0]}), title="run", drift=drift)
    assert [panel.x_label for panel in by_epoch.panels] == ["epoch"] * 2 + ["step"] * 3


@pytest.mark.parametrize("name", ["$x$ \\frac{", "<script>", "_hidden", "蒸留 🧪", "a\nb\x00", "long " * 60, ""])
def test_a_name_of_any_kind_is_drawn(name: str, metrics: pd.DataFrame) -> None:
    odd = pd.DataFrame({"step": [0, 100], f"{name}/js": [0.0, 0.5]})
    board = compose(metrics, title=name, subtitle=name, drift=odd)
    assert chart.png(board, dpi=30)
    assert chart.svg(board, board.panels[-1])


def test_best_row_falls_back_to_the_last() -> None:
    table = pd.DataFrame({"step": [0, 1, 2], "val/loss": [2.0, 1.0, 3.0], "train/loss": [1.0, 1.0, 0.5]})
    assert best_row(table) == (1, "val/loss")
    assert best_row(table.drop(columns="val/loss")) == (2, "train/loss")
    assert best_row(table[["step"]]) == (2, "last row")
    assert best_row(pd.DataFrame()) is None


COLUMNS = ["step", "epoch", "train/loss", "val/loss", "grad_norm", "learning_rate", "active_seconds", "time", "odd"]
VALUES = st.one_of(st.none(), st.floats(), st.integers(-5, 10**12), st.text(max_size=3), st.booleans())


@settings(max_examples=60)
@given(st.data())
def test_no_table_makes_it_raise(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    chosen = data.draw(st.sets(st.sampled_from(COLUMNS)))
    table = pd.DataFrame({name: data.draw(st.lists(VALUES, min_size=rows, max_size=rows)) for name in sorted(chosen)})
    board = compose(table, title="run")
    assert 1 <= len(board.panels) <= 6
    assert len({*board.absent, *(panel.title for panel in board.panels)}) >= 6


HOSTILE = Table(title="<i>", columns=("", ""), rows=[("path", "<script>x</script>")], closing="<img src=x>")


def test_page_loads_nothing_from_outside_and_escapes(metrics: pd.DataFrame) -> None:
    text = page.render(compose(metrics, title="<b>run</b>"), tables=[HOSTILE])
    assert "<script" not in text
    assert "&lt;b&gt;run" in text
    assert "<img" not in text
    for outside in ('src="', "<link rel=stylesheet", 'href="http', "@import", "url(http"):
        assert outside not in text
    assert "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 6


def test_png_is_drawn_in_both_themes(metrics: pd.DataFrame, drift: pd.DataFrame) -> None:
    board = compose(metrics, title="run", drift=drift, resumes=[50], rewinds=[(40, 50)])
    pictures = [chart.png(board, theme=theme, dpi=40) for theme in ("light", "dark")]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1]


def test_a_million_steps_make_a_small_page_with_each_spike() -> None:
    steps = 10**6
    step, noise = np.arange(steps), np.random.default_rng(3)
    columns = ("train/loss", "learning_rate", "tokens_per_second", "grad_norm", "active_seconds", "eta_seconds")
    table = pd.DataFrame({"step": step, **{name: noise.gamma(2.0, 1.0, steps) for name in columns}})
    table["val/loss"] = np.where(step % 1_000 == 999, table["train/loss"], np.nan)
    table.loc[[123_456, 999_998], "grad_norm"] = 1e4
    windows = pd.DataFrame({"step": step[::100]})
    for name in ("length", "tokens", "labels", "logprobs"):
        windows[f"{name}/psi"] = windows[f"{name}/js"] = noise.gamma(1.0, 0.1, len(windows))
    board = compose(table, title="long", drift=windows)
    lines = [line for panel in board.panels for line in panel.series]
    assert max(max(len(line.y), len(line.smooth or ())) for line in lines) <= MAX_POINTS
    assert {123_456, 999_998} <= {x for x, y in zip(*_line(board, 4), strict=True) if y == 1e4}
    assert len(page.render(board).encode()) <= 3_000_000


def _line(board: Board, panel: int) -> tuple[Sequence[float], Sequence[float]]:
    [series] = board.panels[panel].series
    return series.x, series.y
