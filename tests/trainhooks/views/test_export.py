"""A table as CSV and Parquet: named, whole, and harmless in a spreadsheet."""

from pathlib import Path

import pandas as pd
import pytest

from trainhooks.errors import TrainhooksError
from trainhooks.views.export import export

TABLE = pd.DataFrame(
    {"step": [0, 1], "val/loss": [0.25, float("nan")], "note": ["=HYPERLINK(1)", "a\x00b\nc"], "+evil": ["ok", "-1+2"]}
)


def test_csv_is_named_after_the_run_and_read_back(tmp_path: Path) -> None:
    path = export(TABLE, tmp_path / "new" / "workspace", "my run/..\\1")
    assert path == tmp_path / "new" / "workspace" / "results" / "my_run_.._1_metrics.csv"
    read = pd.read_csv(path)
    assert read["val/loss"].tolist()[0] == 0.25
    assert read["note"].tolist() == ["'=HYPERLINK(1)", "a b c"]
    assert read["'+evil"].tolist() == ["ok", "'-1+2"]


def test_numbers_keep_every_bit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-300, -3.5, float(2**53)]
    for kind, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        path = export(pd.DataFrame({"x": values}), tmp_path, "run", kind=kind)
        assert read(path)["x"].tolist() == values


def test_defaults_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(TABLE) == Path("results/training_run_metrics.csv")


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(TrainhooksError, match="cannot be written"):
        export(TABLE, tmp_path, "run")
    with pytest.raises(TrainhooksError, match="Unknown table format"):
        export(TABLE, tmp_path / "x", "run", kind="xlsx")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\x00=1",
        "\u200b=1",
        "\ufeff=1",
        "\u202e=1",
        "\uff1d1",
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_cell_and_no_header_is_a_formula(tmp_path: Path, text: str, kind: str) -> None:
    table = pd.DataFrame({"step": [0], "note": [text], text: [1.0], "kind": pd.Categorical([text])})
    path = export(table, tmp_path, "run", kind=kind)
    read = pd.read_csv(path) if kind == "csv" else pd.read_parquet(path)
    for cell in (read["note"][0], read["kind"][0], read.columns[2]):
        assert cell.startswith("'"), cell
        assert cell.isprintable()
    assert read.iloc[0, 2] == 1.0


def test_two_columns_that_become_one_name_are_both_kept(tmp_path: Path) -> None:
    table = pd.DataFrame([[1.0, "x", -2.5]], columns=["a\x00", "a ", "a\t"])
    read = pd.read_csv(export(table, tmp_path, "run"))
    assert [(name.rstrip("_"), value) for name, value in read.iloc[0].items()] == [
        ("a ", 1.0),
        ("a ", "x"),
        ("a ", -2.5),
    ]


def test_nothing_to_export_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainhooksError, match="no metrics to export"):
        export(pd.DataFrame(), tmp_path, "run")
    assert list(tmp_path.iterdir()) == []
