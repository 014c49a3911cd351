"""One self-contained HTML file: the charts in light and dark, the summary beside them. Loads nothing from anywhere."""

import html
import re
from collections.abc import Sequence

from trainhooks.views import chart
from trainhooks.views.panel import Board

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1a1a1a; --faint: #6b6b6b; --line: #e3e3e3; }
@media (prefers-color-scheme: dark) { :root { --back: #16181d; --text: #e8e8e8; --faint: #a0a4ab; --line: #333842; } }
body { margin: 2rem auto; max-width: 1240px; padding: 0 1rem; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } p { color: var(--faint); margin: 0 0 1rem; }
table { border-collapse: collapse; margin: 0 0 1.5rem; } td, th { text-align: left; padding: .25rem 1.2rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } th { color: var(--faint); font-weight: 500; }
svg { width: 100%; height: auto; } .dark { display: none; }
@media (prefers-color-scheme: dark) { .dark { display: block; } .light { display: none; } }
"""


def render(board: Board, *, facts: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page.

    Args:
        facts: (name, value) rows shown above the charts, such as the best model's.
    """
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts)
    plain = Board(
        title="", subtitle="", x_label=board.x_label, panels=board.panels, resumes=board.resumes, rewinds=board.rewinds
    )
    charts = "".join(
        f'<div class="{theme}" role="img" aria-label="{html.escape(board.title)}">'
        f"{_prefixed(chart.svg(plain, theme=theme), theme)}</div>"
        for theme in chart.THEMES
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(board.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(board.title)}</h1><p>{html.escape(board.subtitle)}</p>"
        f"<table>{rows}</table>{charts}</body></html>\n"
    )


def _prefixed(svg: str, prefix: str) -> str:
    """Make ids unique: both themes stand in one document, and an id must name one thing."""
    return re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{prefix}-", svg)
