"""Draw a board with matplotlib: a PNG, or SVG for the page. Light and dark, colour-blind safe (Okabe and Ito, 2008)."""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainhooks.core.distribution import SHIFTED_PSI
from trainhooks.views.panel import SMOOTH_SUFFIX, Board, Panel

_COLUMNS = 2
_SIZE_INCHES = (6.2, 2.9)
_MARKED = 30

THEMES: Mapping[str, Mapping[str, Any]] = {
    "light": {
        "back": "#ffffff",
        "text": "#1a1a1a",
        "faint": "#6b6b6b",
        "grid": "#e3e3e3",
        "lines": ("#0072b2", "#d55e00", "#009e73", "#cc79a7"),
        "mark": "#000000",
    },
    "dark": {
        "back": "#16181d",
        "text": "#e8e8e8",
        "faint": "#a0a4ab",
        "grid": "#333842",
        "lines": ("#56b4e9", "#e69f00", "#2fc499", "#e6a5c9"),
        "mark": "#ffffff",
    },
}


def draw(board: Board, *, theme: str = "light") -> Figure:
    """Return a matplotlib figure with every panel of the board."""
    colours = THEMES[theme]
    rows = (len(board.panels) + _COLUMNS - 1) // _COLUMNS
    settings: Any = {"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "trainhooks"}
    with mpl.rc_context(settings):
        figure = Figure(
            figsize=(_SIZE_INCHES[0] * _COLUMNS, _SIZE_INCHES[1] * rows + 0.7),
            facecolor=colours["back"],
            layout="constrained",
        )
        title = board.title + (f"\n{board.subtitle}" if board.subtitle else "")
        figure.suptitle(title, color=colours["text"], fontsize=12, x=0.01, ha="left")
        axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for place, panel in zip(axes, board.panels, strict=False):
            _draw_panel(place, panel, board, colours)
        for place in axes[len(board.panels) :]:
            place.axis("off")
    return figure


def _draw_panel(axes: Axes, panel: Panel, board: Board, colours: Mapping[str, Any]) -> None:
    axes.set_facecolor(colours["back"])
    axes.set_title(panel.title, color=colours["text"], loc="left", fontsize=10, fontweight="bold")
    for spine in axes.spines.values():
        spine.set_color(colours["grid"])
    axes.tick_params(colors=colours["faint"])
    if panel.missing is not None:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, panel.missing, color=colours["faint"], ha="center", va="center", transform=axes.transAxes)
        return
    _draw_series(axes, panel, colours)
    _draw_marks(axes, panel, board, colours)
    axes.set_xlabel(board.x_label, color=colours["faint"])
    axes.set_ylabel(panel.y_label, color=colours["faint"])
    axes.grid(color=colours["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    if panel.is_log:
        axes.set_yscale("log")
    if panel.note:
        axes.set_title(panel.note, color=colours["faint"], loc="right", fontsize=8)
    if len(panel.series) > 1 or panel.best_at is not None:
        axes.legend(frameon=False, labelcolor=colours["text"], fontsize=8)


def _draw_series(axes: Axes, panel: Panel, colours: Mapping[str, Any]) -> None:
    colour_at = -1
    smoothed = {each.label.removesuffix(SMOOTH_SUFFIX) for each in panel.series if each.is_smooth}
    for each in panel.series:
        colour_at += not each.is_smooth
        colour = colours["lines"][colour_at % len(colours["lines"])]
        faint = each.label in smoothed
        axes.plot(
            each.x,
            each.y,
            color=colour,
            linewidth=0.7 if faint else 1.8 if each.is_smooth or len(each.y) <= _MARKED else 1.1,
            alpha=0.35 if faint else 1.0,
            marker="o" if len(each.y) <= _MARKED else None,
            markersize=3.5,
            linestyle=("-", "--", "-.", ":")[colour_at % 4] if not faint else "-",
            label=each.label,
        )


def _draw_marks(axes: Axes, panel: Panel, board: Board, colours: Mapping[str, Any]) -> None:
    for begin, end in board.rewinds:
        axes.axvspan(begin, end, color=colours["faint"], alpha=0.15, linewidth=0)
    for at in board.resumes:
        axes.axvline(at, color=colours["faint"], linestyle=":", linewidth=1)
    if "PSI" in panel.y_label:
        axes.axhline(SHIFTED_PSI, color=colours["lines"][1], linestyle="--", linewidth=0.8)
    if panel.best_at is not None:
        best = [
            y
            for each in panel.series
            if each.label == "validation"
            for x, y in zip(each.x, each.y, strict=True)
            if x == panel.best_at
        ]
        axes.axvline(
            panel.best_at, color=colours["mark"], linestyle="--", linewidth=1, label=f"best at {panel.best_at:g}"
        )
        if best:
            axes.plot([panel.best_at], best[:1], marker="*", color=colours["mark"], markersize=11)


def png(board: Board, *, theme: str = "light", dpi: int = 110) -> bytes:
    """Return the board as a PNG."""
    buffer = io.BytesIO()
    draw(board, theme=theme).savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg(board: Board, *, theme: str = "light") -> str:
    """Return the board as one `<svg>` element, text as outlines."""
    buffer = io.StringIO()
    draw(board, theme=theme).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
