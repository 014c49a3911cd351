"""A table of metrics from a CSV file whose columns may change in the middle."""

import csv
from pathlib import Path

import pandas as pd


def read_csv(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return every row of a CSV file, and a sentence for each irregularity.

    A line that names columns again starts a new header. A row that is longer than its header keeps the extra fields
    under `column N`; a shorter one lacks the rest.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no header, or is not CSV in UTF-8.
    """
    header: list[str] = []
    rows: list[dict[str, str]] = []
    longer = shorter = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for fields in csv.reader(line.replace("\0", "") for line in file):
                if not fields:
                    continue
                if not header or _is_header(fields, header):
                    header = [name.strip() or f"column {at}" for at, name in enumerate(fields, 1)]
                    continue
                longer += len(fields) > len(header)
                shorter += len(fields) < len(header)
                names = [*header, *(f"column {at}" for at in range(len(header) + 1, len(fields) + 1))]
                rows.append({name: field for name, field in zip(names, fields, strict=False) if field != ""})
        except csv.Error as error:
            raise ValueError(str(error)) from error
    if not header:
        raise ValueError("it is empty")
    names = list(dict.fromkeys([*header, *(name for row in rows for name in row)]))
    table = pd.DataFrame.from_records(rows, columns=names)
    for name in table:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.notna() | table[name].isna() | table[name].astype(str).str.lower().isin(["nan"])).all():
            table[name] = numbers
    odd = []
    if longer:
        odd.append(
            f"{longer} rows of {path.name} have more fields than its header: the extra ones are called `column N`."
        )
    if shorter:
        odd.append(f"{shorter} rows of {path.name} have fewer fields than its header.")
    return table, odd


def _is_header(fields: list[str], header: list[str]) -> bool:
    """Whether a row names columns: it has at least half of the known names."""
    return len(set(fields) & set(header)) * 2 >= len(header) and not any(_is_number(field) for field in fields)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
