"""Every command explains itself where nothing of the extras is installed, and says what is missing in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kdproxy.cli.main
import trainhooks.cli.main

EXTRAS = (
    *("torch", "numpy", "safetensors", "pandas", "matplotlib", "pyarrow", "IPython", "transformers", "accelerate"),
    *("lightning", "pytorch_lightning", "torchdata", "uvloop", "openai", "anthropic", "xllamacpp", "zstandard"),
    *("backports.zstd", "tensorboard", "wandb"),
)
VERBS = [
    *(("kdproxy", verb) for verb in ("", *kdproxy.cli.main.VERBS)),
    *(("trainhooks", verb) for verb in ("", *trainhooks.cli.main.VERBS)),
]
HELP = """
import importlib, json, sys
sys.modules.update(dict.fromkeys({extras!r}))
from click.testing import CliRunner
said = []
for package, verb in {verbs!r}:
    main = importlib.import_module(package + ".cli.main").main
    done = CliRunner().invoke(main, [verb, "--help"] if verb else ["--help"], prog_name=package)
    said.append([package, verb, done.exit_code, done.output, repr(done.exception)])
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def helped() -> dict[tuple[str, str], tuple[int, str, str]]:
    script = HELP.format(extras=EXTRAS, verbs=VERBS)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {(package, verb): tuple(rest) for package, verb, *rest in json.loads(done.stdout)}


@pytest.mark.parametrize(("package", "verb"), VERBS)
def test_help_needs_no_extra(helped: dict[tuple[str, str], Any], package: str, verb: str) -> None:
    code, output, error = helped[package, verb]
    assert code == 0, error
    assert output.startswith(f"Usage: {package} {verb}".rstrip())


RUN = """
import sys
sys.modules.update(dict.fromkeys({extras!r}))
from {package}.cli.main import main
main({arguments!r}, prog_name={package!r})
"""


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["plot", "."], "pandas"),
        (["recover", "."], "pandas"),
        (["export", "."], "pandas"),
        (["export", ".", "--format", "parquet"], "pandas"),
    ],
    ids=" ".join,
)
def test_a_verb_without_its_extra_says_which_in_one_line(tmp_path: Path, arguments: list[str], module: str) -> None:
    script = RUN.format(extras=EXTRAS, package="trainhooks", arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"needs {module}" in line or "needs numpy" in line or "needs matplotlib" in line, line
    assert 'its extra "notebook"' in line
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["status", "."], ["ls", "."], ["tail", "."], ["verify", "."], ["sessions"]])
def test_looking_at_a_run_needs_no_extra(tmp_path: Path, arguments: list[str]) -> None:
    script = RUN.format(extras=EXTRAS, package="trainhooks", arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "extra" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_compressed_file_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    script = RUN.format(extras=EXTRAS, package="kdproxy", arguments=["warm", "rows.jsonl.zst", "--data-dir", "data"])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    if sys.version_info < (3, 14):
        assert "backports.zstd" in done.stderr
