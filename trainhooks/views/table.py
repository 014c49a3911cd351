"""Rows for a person: text in a terminal, HTML in a notebook and on the page."""

import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A title, rows of equal length, a closing sentence. Columns without names have no header."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    closing: str = ""

    def __str__(self) -> str:
        rows = [self.columns, *self.rows] if any(self.columns) else self.rows
        widths = [max((len(row[at]) for row in rows), default=0) for at in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.title, *(f"  {line}" for line in lines), *([self.closing] if self.closing else [])])

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(self.title)}</b>{self.body()}<p>{html.escape(self.closing)}</p>"

    def body(self) -> str:
        """Return the `<table>` alone; empty without rows."""
        if not self.rows:
            return ""
        head = f"<tr>{''.join(_cell('th', name, 'col') for name in self.columns)}</tr>" if any(self.columns) else ""
        return f"<table>{head}{''.join(map(_row, self.rows))}</table>"


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{_cell('th', cells[0], 'row')}{''.join(_cell('td', cell) for cell in cells[1:])}</tr>"


def _cell(tag: str, text: str, scope: str | None = None) -> str:
    # A notebook right-aligns the cells of a table unless each cell says otherwise.
    of = "" if scope is None else f' scope="{scope}"'
    return f'<{tag}{of} style="text-align:left">{html.escape(text)}</{tag}>'
