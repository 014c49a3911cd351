"""examples/training.ipynb, executed: in every order each cell gives its result or one sentence, never a traceback."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

NOTEBOOK = Path(__file__).resolve().parents[3] / "examples" / "training.ipynb"
QUICK = "total_steps = 45\n"
"""A cell of ours between settings and training: the same training, shorter."""


def execute(
    folder: Path, cells: Sequence[str], settings: str = QUICK, edit: tuple[str, str] = ("", "")
) -> dict[str, str]:
    """Run the named cells in a new kernel, in this order; returns what each put out, pictures as `<png>`.

    Args:
        edit: (from, to): what the user chose in a form.
    """
    source = nbformat.reads(NOTEBOOK.read_text().replace(*edit) if edit[0] else NOTEBOOK.read_text(), as_version=4)
    by_id = {cell.id: cell for cell in source.cells}
    chosen = [by_id[name] for name in cells]
    if "settings" in cells:
        chosen.insert(cells.index("settings") + 1, nbformat.v4.new_code_cell(settings, id="quick"))
    notebook = nbformat.v4.new_notebook(cells=chosen, metadata=source.metadata)
    with tempfile.TemporaryDirectory(prefix="nb") as sockets:  # a short path: a socket's has at most 107 bytes
        # Not over TCP: the kernel binds ports that its parent chose, and another process may take one in between.
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/k"})
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            notebook, timeout=300, startup_timeout=300, resources=resources, allow_errors=True, config=config
        )
        client.execute()
    return {cell.id: "\n".join(map(_text, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"}


def _text(output: Any) -> str:
    if output.output_type == "error":
        return f"TRACEBACK {output.ename}: {output.evalue}"
    if output.output_type == "stream":
        return str(output.text)
    if "image/png" in output.data:
        return "<png>"
    return str(output.data.get("text/html") or output.data.get("text/plain", ""))


LOOK = ("dashboard", "diagnostic", "summary", "csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder in which the whole notebook ran, and what it put out."""
    folder = tmp_path_factory.mktemp("workspace")
    return folder, execute(folder, ["install", "settings", "training", *LOOK, "recovery", "watch"])


def test_the_whole_notebook(trained: tuple[Path, dict[str, str]]) -> None:
    folder, said = trained
    assert not [name for name, text in said.items() if "TRACEBACK" in text], said
    assert said["install"] == "trainhooks is here.\n"
    assert said["settings"] == "200 steps of 16 samples; the run is kept in training_output.\n"
    assert "Trained to the end." in said["training"]
    assert "Recovered" in said["training"]
    assert "has ended (closed) after 45 of 45 steps." in said["watch"]
    assert said["dashboard"] == "<png>"
    assert "All there" in said["diagnostic"]
    assert "lowest val/loss" in said["summary"]
    results = folder / "training_output" / "results"
    assert sorted(file.suffix for file in results.iterdir()) == [".csv", ".html", ".png"]
    assert len((next(results.glob("*.csv"))).read_text().splitlines()) == 46


def test_recovery_alone_in_a_new_kernel(trained: tuple[Path, dict[str, str]]) -> None:
    said = execute(trained[0], ["recovery"])
    assert "All other cells work now" in said["recovery"]


def test_recovery_then_everything_after_it(trained: tuple[Path, dict[str, str]]) -> None:
    said = execute(trained[0], ["recovery", "dashboard", "summary", "csv", "diagnostic"])
    assert not [text for text in said.values() if "TRACEBACK" in text], said
    assert said["dashboard"] == "<png>"
    assert "step" in said["summary"]
    assert "_metrics.csv" in said["csv"]


def test_a_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    said = execute(tmp_path, ["settings", "recovery", *LOOK], settings='output_directory = "nowhere"\n')
    assert not [text for text in said.values() if "TRACEBACK" in text], said
    assert "nowhere: it does not exist" in said["recovery"]
    assert "Run the training first" in said["recovery"]


def test_nothing_run_yet_says_what_to_run(tmp_path: Path) -> None:
    said = execute(tmp_path, LOOK)
    assert not [text for text in said.values() if "TRACEBACK" in text], said
    assert all("Run the training cell" in said[name] for name in LOOK)
    assert not [text for text in said.values() if "\\n" in text or text.startswith("'")], said


def test_training_before_the_settings_says_so(tmp_path: Path) -> None:
    assert execute(tmp_path, ["training"])["training"] == "Run the settings cell first.\n"


def test_there_is_no_drive_here(tmp_path: Path) -> None:
    said = execute(tmp_path, ["settings"], edit=("keep_on_drive = False", "keep_on_drive = True"))
    assert said["settings"].splitlines() == [
        "This is not Colab, so there is no Drive.",
        "200 steps of 16 samples; the run is kept in training_output.",
    ]


def test_training_continues_after_the_kernel_was_lost(tmp_path: Path) -> None:
    stopped = (
        "total_steps = 45\n"
        "import trainhooks.session.context as context\n"
        "lost = context.TrainingProgressContext.update_metrics\n"
        "def lose(self, step, *args, **more):\n"
        "    lost(self, step, *args, **more)\n"
        "    if step == 30:\n"
        "        raise KeyboardInterrupt\n"
        "context.TrainingProgressContext.update_metrics = lose\n"
    )
    first = execute(tmp_path, ["settings", "training", "diagnostic"], settings=stopped)
    assert "Stopped. Run this cell again" in first["training"]
    assert "TRACEBACK" not in first["training"]
    assert "All there" in first["diagnostic"]
    said = execute(tmp_path, ["settings", "training", "csv"])
    assert "Trained to the end." in said["training"]
    rows = next((tmp_path / "training_output" / "results").glob("*.csv")).read_text().splitlines()
    assert len(rows) == 46


def test_a_finished_training_and_other_settings_are_a_sentence(trained: Any, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained[0], folder)
    said = execute(folder, ["settings", "training"])
    assert "Trained to the end." in said["training"]
    said = execute(folder, ["settings", "training"], settings=QUICK + "batch_size = 8\n")
    assert "config.batch_size was 16 and is 8. Hint: Put it back" in said["training"]
    assert "TRACEBACK" not in said["training"]


@pytest.mark.parametrize(
    ("repository", "is_checkout", "source"),
    [
        ("", True, "file://"),
        ("https://example.com/kdproxy", False, "git+https://example.com/kdproxy"),
        ("", False, None),
    ],
)
def test_the_install_cell_never_asks_an_index_for_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: str, is_checkout: bool, source: str | None
) -> None:
    from IPython.core.inputtransformer2 import TransformerManager

    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "".join(next(cell["source"] for cell in cells if cell.get("id") == "install"))
    code = TransformerManager().transform_cell(code.replace('repository = ""', f'repository = "{repository}"'))
    asked: list[tuple[str, ...]] = []

    class Shell:
        run_line_magic = staticmethod(lambda *what: asked.append(what))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(NOTEBOOK.parent if is_checkout else tmp_path)
    names: dict[str, object] = {"get_ipython": Shell}
    exec(code, names)
    if source is None:
        assert asked == []
    else:
        assert asked == [("pip", 'install --quiet "{requirement}"')]
        assert str(names["requirement"]).startswith(f"kdproxy[train,notebook] @ {source}")
