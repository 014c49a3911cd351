"""One self-contained HTML file: the summary, one chart per panel, what was recorded. Loads nothing, runs nothing.

Charts are drawn once; their colours are CSS variables, light or dark as the reader's system is.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import fields

from trainhooks.views import chart
from trainhooks.views.board import Board
from trainhooks.views.table import Table
from trainhooks.views.theme import THEMES, Theme

_STYLE = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
body { margin: 1.5rem auto; max-width: 1360px; padding: 0 1rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { color: var(--faint); margin: .1rem 0 .6rem; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; color: var(--text); padding: 0; margin: .4rem 0;
  list-style: none; }
.key i { display: inline-block; width: 1.5rem; height: .9rem; margin-right: .5rem; vertical-align: -.1rem;
  text-align: center; font-style: normal; line-height: .9rem; }
.resumed { border-left: 2px dotted var(--text); width: 0 !important; } .again { background: var(--faint); opacity: .3; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: .8rem 1.4rem; }
figure { margin: 0; } svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .25rem 1.2rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--grid); } th { color: var(--faint); font-weight: 500; }
table { overflow-wrap: break-word; } th:first-child { min-width: 7rem; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
td:nth-child(2):last-child { overflow-wrap: anywhere; white-space: normal; }
@media (max-width: 600px) { td, th { padding-right: .5rem; font-size: .85rem; } }
"""


def render(board: Board, *, tables: Sequence[Table] = (), refresh_seconds: float | None = None) -> str:
    """Return the page.

    Args:
        tables: shown below the charts, such as the one of the best model.
        refresh_seconds: how often the page of a run in progress reloads itself.
    """
    title = html.escape(board.title)
    refresh = (
        "" if refresh_seconds is None else f'<meta http-equiv="refresh" content="{max(1, round(refresh_seconds))}">'
    )
    charts = "".join(
        f'<figure role="img" aria-label="{html.escape(panel.title)}">'
        f"{_named(chart.svg(board, panel), f'p{at}')}</figure>"
        for at, panel in enumerate(board.panels)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"{refresh}<title>{title}</title><style>{_style()}</style></head><body>"
        f"<h1>{title}</h1><p>{html.escape(board.subtitle)}</p>{_head(board)}{_key(board)}"
        f'<div class="charts">{charts}</div>'
        f"{''.join(map(_table, tables))}</body></html>\n"
    )


def _head(board: Board) -> str:
    absent = f"not recorded: {', '.join(board.absent)}" if board.absent else ""
    return "".join(f"<p>{html.escape(line)}</p>" for line in (board.config, absent) if line)


def _key(board: Board) -> str:
    marks = []
    if board.best is not None:
        marks.append(f"<li><i>★</i>{html.escape(board.best)}</li>")
    if board.resumes:
        marks.append('<li><i class="resumed"></i>resumed</li>')
    if board.rewinds:
        marks.append('<li><i class="again"></i>trained again</li>')
    return f'<ul class="key">{"".join(marks)}</ul>' if marks else ""


def _table(table: Table) -> str:
    return (
        f'<h2>{html.escape(table.title)}</h2><div class="wide">{table.body()}</div><p>{html.escape(table.closing)}</p>'
    )


def _style() -> str:
    return _STYLE.replace("LIGHT", _variables(THEMES["light"])).replace("DARK", _variables(THEMES["dark"]))


def _variables(theme: Theme) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in _names(theme))


def _names(theme: Theme) -> list[tuple[str, str]]:
    single = [(field.name, getattr(theme, field.name)) for field in fields(theme)]
    lines = [(f"line{at}", colour) for at, colour in enumerate(theme.lines)]
    return [(name, colour) for name, colour in single if isinstance(colour, str)] + lines


def _named(svg: str, prefix: str) -> str:
    """Replace colours by variables, and make ids unique: several charts share one document."""
    for name, colour in _names(THEMES["light"]):
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{prefix}-", svg)
