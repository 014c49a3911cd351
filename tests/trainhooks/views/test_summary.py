"""The diagnostic and the best model, on whatever a notebook holds: a table or a sentence, never a traceback."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainhooks import notebook, training_progress_context
from trainhooks.storage.checkpoints import directories
from trainhooks.views.summary import OPTIONAL, REQUIRED, diagnose, summarise_best, summarise_columns

METRICS = pd.DataFrame(
    {
        "epoch": [0, 1, 2],
        "train/loss": [3.0, 2.0, 1.5],
        "val/loss": [3.1, 2.2, 2.4],
        "learning_rate": [1e-3, 5e-4, 1e-4],
    }
)


def there(**more: Any) -> dict[str, Any]:
    config = SimpleNamespace(run_name="demo", checkpoint_dir="/runs/demo/checkpoints")
    return {
        "results": {},
        "metrics_df": METRICS,
        "workspace_root": "/runs/demo",
        "training_config": config,
        **more,
    }


def cells(table: Any) -> dict[str, str]:
    return {row[0]: row[1] for row in table.rows}


def test_nothing_is_there() -> None:
    table = diagnose({})
    assert cells(table) == {
        **dict.fromkeys(REQUIRED, "✘ MISSING"),
        **dict.fromkeys(OPTIONAL, "○ not there"),
    }
    assert table.closing == (
        "Missing: results, metrics_df, workspace_root, training_config. "
        "Run the training cell, or the recovery cell if the training ran before."
    )


def test_all_is_there() -> None:
    table = diagnose(there(run_id="r1"))
    assert set(cells(table).values()) == {"✔ there", "○ not there"}
    assert table.closing == (
        "All there. Run demo: 3 epochs, 3 rows, workspace /runs/demo, checkpoints in /runs/demo/checkpoints."
    )
    assert str(table).splitlines()[1].split() == ["name", "state", "what", "it", "is"]
    assert '<th scope="row" style="text-align:left">results</th>' in table._repr_html_()


def test_settings_may_be_a_dict() -> None:
    assert "Run mine: 3 epochs" in diagnose(there(training_config={"run_name": "mine"})).closing


def test_the_least_validation_loss_is_best() -> None:
    found = cells(summarise_best(there()))
    assert found == {
        "chosen by": "lowest val/loss",
        "epoch": "1",
        "val/loss": "2.2",
        "train/loss": "2",
        "learning_rate": "0.0005",
        "val/perplexity": "9.025 (exp of val/loss)",
        "checkpoint": "unknown",
    }


@pytest.mark.parametrize("column", ["gone", "empty"])
def test_without_validation_the_last_epoch_is(column: str) -> None:
    table = METRICS.drop(columns="val/loss") if column == "gone" else METRICS.assign(**{"val/loss": float("nan")})
    found = cells(summarise_best(there(metrics_df=table)))
    assert found["chosen by"] == "last epoch: no val/loss was recorded"
    assert (found["epoch"], found["train/loss"]) == ("2", "1.5")
    assert "val/loss" not in found
    assert "val/perplexity" not in found


def test_optional_metrics_are_left_out_or_shown() -> None:
    found = cells(summarise_best(there(metrics_df=METRICS.assign(grad_norm=[1.0, 2.5, None], perplexity="odd"))))
    assert found["grad_norm"] == "2.5"
    assert "perplexity" not in found


def test_the_checkpoint_is_looked_for(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 1, state={"model": torch.nn.Linear(2, 1)}) as progress:
        progress.loader(torch.utils.data.TensorDataset(torch.ones(1, 2)), batch_size=1)
        for step, _ in progress.steps():
            progress.update_metrics(step, loss=1.0)
    path = list(directories(tmp_path / "checkpoints"))[-1]
    names = there(results={"best_checkpoint": str(path)})
    assert cells(summarise_best(names))["checkpoint"].endswith("complete)")
    largest = max((file for file in path.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    assert f"is damaged: {largest.name}" in cells(summarise_best(names))["checkpoint"]
    (path / "manifest.json").write_text("{")
    assert "is damaged" in cells(summarise_best(names))["checkpoint"]
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"x" * 1_500)
    assert cells(summarise_best(there(results={"best_checkpoint": weights})))["checkpoint"] == f"{weights} (1.5 KB)"
    gone = there(results={"best_checkpoint": "/runs/gone.pt"})
    assert cells(summarise_best(gone))["checkpoint"] == "/runs/gone.pt no longer exists"


def test_what_was_recorded_is_listed() -> None:
    table = summarise_columns(METRICS.assign(note="text", odd=[None, 2.0, -1.0]))
    assert [row for row in table.rows if row[0] in {"odd", "note"}] == [("odd", "2", "-1", "-1", "2")]


ANYTHING = st.one_of(
    st.none(), st.text(max_size=5), st.integers(), st.floats(), st.lists(st.integers(), max_size=2), st.just({})
)


@settings(max_examples=40)
@example({"results": "", "workspace_root": "", "training_config": ""}, [{}], True)
@given(
    st.dictionaries(st.sampled_from([*REQUIRED, *OPTIONAL]), ANYTHING), st.lists(ANYTHING, max_size=3), st.booleans()
)
def test_nothing_makes_a_cell_raise(names: dict[str, Any], values: list[Any], is_table: bool) -> None:
    if is_table:
        names["metrics_df"] = pd.DataFrame({"val/loss": values, "train/loss": values, "epoch": values}, dtype=object)
    for cell in (notebook.diagnose, notebook.best_model):
        table = cell(names)
        assert str(table)
        assert table._repr_html_()
