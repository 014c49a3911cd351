"""What people give by mistake, and what is not installed: one sentence with what to do, never a raw error."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from torch import nn

from trainhooks import setup_progress_tracking, training_progress_context
from trainhooks.errors import ConfigInvalid, TrainhooksError

MODEL = nn.Linear(2, 1)
SPLITS = datasets.DatasetDict(train=datasets.Dataset.from_dict({"x": [1, 2]}))


@pytest.mark.parametrize(
    "options",
    [
        {"state": MODEL},
        {"state": torch.optim.SGD(MODEL.parameters(), lr=1.0)},
        {"state": [MODEL]},
        {"state": ("model", MODEL)},
        {"state": "model"},
        {"state": True},
        {"state": {1: MODEL}},
        {"state": {"": MODEL}},
        {"state": {"model": MODEL.state_dict()}},
        {"state": {"models": [MODEL]}},
        {"state": {"model": MODEL}, "checkpoints": 5},
        {"state": {"model": MODEL}, "checkpoints": {"every_steps": 5}},
        {"drift": "allow"},
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_used_is_reported(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TrainhooksError, match="Hint: "), training_progress_context({}, tmp_path, 4, **options):
        pass


@pytest.mark.parametrize(
    "source",
    [
        SPLITS,
        datasets.IterableDatasetDict(train=SPLITS["train"].to_iterable_dataset()),
        {"train": [1, 2]},
        "data.jsonl",
        Path("data.jsonl"),
        pd.DataFrame({"x": [1]}),
        None,
        3,
        (number for number in range(3)),
    ],
    ids=lambda source: type(source).__name__,
)
def test_a_source_that_is_no_data_set_is_reported(tmp_path: Path, source: Any) -> None:
    progress = setup_progress_tracking({}, tmp_path, 4, database=False)
    with pytest.raises(ConfigInvalid, match="Hint: "):
        progress.loader(source)
    progress.close()


def run(code: str, *argv: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def without(*modules: str) -> str:
    return "import sys\n" + "".join(f"sys.modules[{each!r}] = None\n" for each in modules)


@pytest.mark.parametrize("verb", ["plot", "recover", "export"])
def test_a_command_without_pandas_has_its_help_and_says_what_to_install(tmp_path: Path, verb: str) -> None:
    code = without("pandas", "matplotlib", "pyarrow") + "from trainhooks.cli.main import main\nmain()\n"
    status, said = run(code, verb, "--help")
    assert status == 0, said
    assert "Usage:" in said
    status, said = run(code, verb, tmp_path)
    assert status == 1
    assert (
        'needs pandas, which is not installed here. Hint: pip install pandas, or kdproxy with its extra "notebook"'
        in said
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("module", ["trainhooks.recovery", "trainhooks.notebook"])
def test_a_module_without_pandas_says_what_to_install(module: str) -> None:
    status, said = run(without("pandas") + f"import {module}")
    assert status == 1
    assert said.splitlines()[-1].endswith(
        'Hint: pip install pandas, or kdproxy with its extra "notebook" (docs/install.md)'
    )


@pytest.mark.parametrize("use", ["state={'model': 1}", "database=False"])
def test_a_training_without_torch_says_what_to_install(tmp_path: Path, use: str) -> None:
    code = without("torch") + (
        "import trainhooks\n"
        f"with trainhooks.training_progress_context({{}}, sys.argv[1], 4, {use}) as progress:\n"
        "    progress.loader([1, 2])\n"
    )
    status, said = run(code, tmp_path / "run")
    assert status == 1
    assert said.splitlines()[-1].endswith(
        'needs torch, which is not installed here. Hint: pip install torch, or kdproxy with its extra "train" '
        "(docs/install.md)"
    )
