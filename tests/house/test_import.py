"""What `import kdproxy` may cost: a fresh interpreter shows which modules it pulls in."""

import json
import subprocess
import sys

import pytest

TRAINING_STACK = {"torch", "numpy", "lightning", "transformers", "pandas", "litellm"}
SERVER_STACK = {"aiohttp", "aiohttp.web", "diskcache", "tenacity", "click", "rich", "uvloop"}


def _modules_after(code: str, *, hidden: set[str] | None = None) -> set[str]:
    """Names in sys.modules once a new interpreter ran the code; importing a hidden one fails in it."""
    script = (
        "import json, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(hidden or ())!r}))\n"
        f"{code}\n"
        "print(json.dumps([name for name, module in sys.modules.items() if module is not None]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_import_kdproxy_loads_no_server_and_no_training_stack() -> None:
    assert not _modules_after("import kdproxy") & (SERVER_STACK | TRAINING_STACK)


@pytest.mark.parametrize("module", ["kdproxy.app", "kdproxy.cli.main", "kdproxy.testing"])
def test_proxy_runs_where_the_training_stack_is_missing(module: str) -> None:
    loaded = _modules_after(f"import {module}", hidden=TRAINING_STACK)
    assert module in loaded
    assert not loaded & TRAINING_STACK


def test_trainhooks_needs_nothing_of_the_server() -> None:
    assert not _modules_after("import trainhooks", hidden=SERVER_STACK) & SERVER_STACK
