"""An integration without its trainer says what to install."""

import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("module", "package"), [("huggingface", "transformers"), ("lightning", "pytorch_lightning")])
def test_a_missing_trainer_is_named_with_a_hint(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.delitem(sys.modules, f"trainhooks.integrations.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package.replace('_', '-')}"):
        importlib.import_module(f"trainhooks.integrations.{module}")


def test_trainhooks_itself_loads_no_trainer() -> None:
    code = (
        "import trainhooks, sys; print([n for n in ('torch', 'transformers', 'pytorch_lightning') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
