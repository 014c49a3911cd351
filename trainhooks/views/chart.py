"""Draw a board with matplotlib: a PNG, or one SVG per panel for the page. Lines differ for colour-blind readers, too.

The caller's matplotlib settings have no effect: the same run looks the same in each notebook.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from trainhooks.views.board import Board, Panel, Series, number
from trainhooks.views.theme import THEMES, Theme

_COLUMNS = 2
_PANEL_INCHES = (5.0, 2.7)
_ALONE_INCHES = (4.4, 2.7)
_LEFT_INCHES, _RIGHT_INCHES, _ABOVE_INCHES, _BELOW_INCHES = 0.66, 0.26, 0.5, 0.42
"""Margins around the axes of each panel, the same for all, so that the axes align."""
_TITLE_INCHES, _KEY_INCHES, _LINE_INCHES = 0.62, 0.24, 0.19
_ROUND_STEPS = (1, 2, 5, 10)
_TICKS = 6
_NOTHING = 1e-3
"""A range below this share of the values is noise in the last digits."""
_SHOWN_RANGE = 0.02
"""The share of the values that the axis of such a range covers."""
_MARKED = 30
"""Lines of at most this many points mark each point."""
_DASHES = ("-", (0, (5, 1.5)), "-.", (0, (1, 1.2)))
_MARKERS = ("o", "s", "^", "D")
_FEW_DECADES = 1_000.0
_LONGEST = 100
_ROOM, _ROOM_OF_A_SIGN = 58, 6
"""Characters that fit above a chart, and how many the marker before each name takes."""
_SETTINGS: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.parse_math": False,  # a metric's name may have a $ in it
    "svg.fonttype": "path",
    "svg.hashsalt": "trainhooks",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def png(board: Board, *, theme: str = "light", dpi: int = 110) -> bytes:
    """Return the board as a PNG."""
    buffer = io.BytesIO()
    with _settings():
        draw(board, THEMES[theme]).savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg(board: Board, panel: Panel, *, theme: str = "light") -> str:
    """Return one panel of the board as an `<svg>` element without a background, text as outlines."""
    buffer = io.StringIO()
    with _settings():
        figure = Figure(figsize=_ALONE_INCHES)
        figure.patch.set_visible(False)
        axes = _place(figure, 0.0, 0.0, _ALONE_INCHES)
        axes.patch.set_visible(False)
        _draw_panel(axes, panel, board, THEMES[theme], is_lowest=True)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@contextmanager
def _settings() -> Iterator[None]:
    with mpl.style.context(["default", dict(_SETTINGS)]), warnings.catch_warnings():
        # In the PNG, letters that DejaVu lacks are drawn as boxes; the page shows them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def draw(board: Board, theme: Theme) -> Figure:
    """Return the figure of a whole board."""
    rows = (len(board.panels) + _COLUMNS - 1) // _COLUMNS
    key = _key(board, theme)
    lines = [line for line in (board.subtitle, board.config, _absent(board)) if line] or [""]
    header = _TITLE_INCHES + _LINE_INCHES * (len(lines) - 1) + (_KEY_INCHES if key else 0.0)
    width, height = _PANEL_INCHES[0] * _COLUMNS, _PANEL_INCHES[1] * rows + header
    figure = Figure(figsize=(width, height), facecolor=theme.back)
    left = 0.1 / width
    figure.text(
        left, 1 - 0.12 / height, _cut(board.title, _LONGEST), color=theme.text, size=13, weight="bold", va="top"
    )
    for at, line in enumerate(lines):
        figure.text(left, 1 - (0.37 + _LINE_INCHES * at) / height, _cut(line, _LONGEST), color=theme.faint, va="top")
    if key:
        figure.legend(
            handles=key,
            loc="upper left",
            bbox_to_anchor=(0.0, 1 - (0.53 + _LINE_INCHES * (len(lines) - 1)) / height),
            ncols=len(key),
            frameon=False,
            labelcolor=theme.text,
            fontsize=9,
            borderpad=0.3,
            handlelength=1.6,
        )
    for at, panel in enumerate(board.panels):
        row, column = divmod(at, _COLUMNS)
        axes = _place(figure, column * _PANEL_INCHES[0], header + row * _PANEL_INCHES[1], _PANEL_INCHES)
        is_lowest = all(
            below.missing or below.x_label != panel.x_label for below in board.panels[at + _COLUMNS :: _COLUMNS]
        )
        _draw_panel(axes, panel, board, theme, is_lowest=is_lowest)
    return figure


def _place(figure: Figure, left: float, above: float, size: tuple[float, float]) -> Axes:
    """Add the axes of a panel that is `left` and `above` inches from the figure's corner."""
    width, height = figure.get_size_inches()
    bottom = height - above - size[1] + _BELOW_INCHES
    inner = size[0] - _LEFT_INCHES - _RIGHT_INCHES, size[1] - _ABOVE_INCHES - _BELOW_INCHES
    axes: Axes = figure.add_axes(((left + _LEFT_INCHES) / width, bottom / height, inner[0] / width, inner[1] / height))
    return axes


def _absent(board: Board) -> str:
    return f"not recorded: {', '.join(board.absent)}" if board.absent else ""


def _key(board: Board, theme: Theme) -> list[Any]:
    """Explain once what the marks in the panels mean."""
    key: list[Any] = []
    if board.best is not None:
        key.append(Line2D([], [], color=theme.text, marker="*", markersize=10, linewidth=0, label=board.best))
    if board.resumes:
        key.append(Line2D([], [], color=theme.text, linestyle=":", linewidth=1.3, label="resumed"))
    if board.rewinds:
        key.append(Patch(color=theme.faint, alpha=theme.shade, linewidth=0, label="trained again"))
    return key


def _draw_panel(axes: Axes, panel: Panel, board: Board, theme: Theme, *, is_lowest: bool) -> None:
    axes.set_facecolor(theme.back)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    axes.tick_params(which="both", colors=theme.faint)
    axes.tick_params(length=3)
    axes.set_title(panel.title, color=theme.text, loc="left", fontsize=10.5, fontweight="bold", pad=17)
    # The unit is beside the title: beside the axis it would overlap the tick labels.
    unit = "" if panel.y_label.lower() == panel.title.lower() else panel.y_label
    axes.set_title(unit, color=theme.faint, loc="right", fontsize=8.5, pad=18)
    if panel.missing is not None:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, panel.missing, color=theme.faint, ha="center", va="center", transform=axes.transAxes)
        return
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    _draw_marks(axes, panel, board, theme)
    _draw_series(axes, panel, theme)
    _draw_axes(axes, panel, board, theme, is_lowest=is_lowest)
    axes.legend(
        handles=_names(panel, theme),
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=4,
        frameon=False,
        labelcolor=theme.text,
        fontsize=8.5,
        borderpad=0.2,
        borderaxespad=0.1,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.2,
    )


def _draw_series(axes: Axes, panel: Panel, theme: Theme) -> None:
    for at, each in enumerate(panel.series):
        style = _style(panel, at, theme)
        if each.smooth is not None:
            axes.plot(each.x, each.y, color=style["color"], linewidth=0.6, alpha=theme.raw)
            axes.plot(each.smooth_x or (), each.smooth, **style)
        else:
            axes.plot(each.x, each.y, **style)


def _style(panel: Panel, at: int, theme: Theme) -> dict[str, Any]:
    """Colour and, for colour-blind readers, markers or dashes."""
    each, at = panel.series[at], at % len(theme.lines)
    is_marked = len(each.y) <= _MARKED
    return {
        "color": theme.lines[at],
        "linewidth": 1.8 if each.smooth is not None or is_marked else 1.2,
        "marker": _MARKERS[at] if is_marked else None,
        "markersize": 4,
        "linestyle": "-" if is_marked else _DASHES[at],
    }


def _names(panel: Panel, theme: Theme) -> list[Line2D]:
    """Label each line, with its last value and its last smoothed value where they fit."""
    is_few = len(panel.series) < len(theme.lines)
    room = _ROOM - _ROOM_OF_A_SIGN * len(panel.series)
    names = sum(len(each.label) for each in panel.series)
    values = [_value(each) for each in panel.series]
    if names + sum(map(len, values)) > room:
        values = [f" {number(each.last)}" for each in panel.series]
    if not is_few:
        values = [""] * len(panel.series)
    longest = room // len(panel.series) - max(map(len, values))
    if sum(len(each.label) + len(value) for each, value in zip(panel.series, values, strict=True)) <= room:
        longest = room
    labels = [
        each.caption or _cut(each.label, longest) + value for each, value in zip(panel.series, values, strict=True)
    ]
    return [Line2D([], [], label=label, **_style(panel, at, theme)) for at, label in enumerate(labels)]


def _value(line: Series) -> str:
    smoothed = "" if line.smooth is None else f" (smoothed {number(line.smooth[-1])})"
    return f" {number(line.last)}{smoothed}"


def _draw_axes(axes: Axes, panel: Panel, board: Board, theme: Theme, *, is_lowest: bool) -> None:
    if is_lowest:
        axes.set_xlabel(panel.x_label, color=theme.faint)
    plain = FuncFormatter(lambda value, _: _tick(value))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=_TICKS, steps=_ROUND_STEPS, integer=panel.x_label != "epoch"))
    if panel.is_log:
        axes.set_yscale("log")
        values = [value for each in panel.series for value in each.y]
        few = max(values) < _FEW_DECADES * min(values)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=_TICKS, steps=_ROUND_STEPS))
        _set_range(axes, panel)
    axes.yaxis.set_major_formatter(plain)
    span = [x for other in board.panels if other.x_label == panel.x_label for each in other.series for x in each.x]
    if min(span) < max(span):
        margin = 0.015 * (max(span) - min(span))
        axes.set_xlim(min(span) - margin, max(span) + margin)


def _set_range(axes: Axes, panel: Panel) -> None:
    """Keep noise small: an axis scaled to it would show a trend where there is no trend."""
    low = min(min(each.y) for each in panel.series)
    high = max(max(each.y) for each in panel.series)
    floor = panel.limit.value if panel.limit is not None else panel.least_top
    if floor is not None:
        axes.set_ylim(0.0, 1.15 * max(floor, high))
    elif high - low < _NOTHING * max(abs(low), abs(high)):
        middle, half = (low + high) / 2, _SHOWN_RANGE / 2 * max(abs(low), abs(high))
        axes.set_ylim(middle - half, middle + half)


def _draw_marks(axes: Axes, panel: Panel, board: Board, theme: Theme) -> None:
    if panel.x_label == "step":
        for begin, end in board.rewinds:
            axes.axvspan(begin, end, color=theme.faint, alpha=theme.shade, linewidth=0)
        for at in board.resumes:
            axes.axvline(at, color=theme.text, linestyle=":", linewidth=1.3)
    if panel.limit is not None:
        axes.axhline(panel.limit.value, color=theme.text, linewidth=0.9)
        axes.annotate(
            panel.limit.meaning,
            xy=(0.0, panel.limit.value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 3),
            textcoords="offset points",
            color=theme.text,
            fontsize=8,
            bbox={"facecolor": theme.back, "linewidth": 0, "pad": 0.6},
        )
    if panel.best_at is not None:
        axes.axvline(panel.best_at, color=theme.text, linewidth=0.7)
        for x, y in _best(panel):
            axes.plot(
                [x], [y], marker="*", color=theme.text, markeredgecolor=theme.back, markersize=13, linewidth=0, zorder=5
            )


def _best(panel: Panel) -> list[tuple[float, float]]:
    """Return the point of the validation line that is marked as the best."""
    lines = (each for each in panel.series if each.label == "validation")
    return [(x, y) for each in lines for x, y in zip(each.x, each.y, strict=True) if x == panel.best_at][:1]


def _tick(value: float) -> str:
    if 0 < abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g}{unit}"
    return f"{value:,.6g}"


def _cut(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
