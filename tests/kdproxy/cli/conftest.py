"""The command as a user runs it: a process of its own, or in this one where only its words matter."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kdproxy.cli.main import main
from tests.ran import Ran


@pytest.fixture
def kdproxy(tmp_path: Path) -> Callable[..., Ran]:
    """Run `kdproxy` with arguments in the test's own directory, with no settings but those given."""

    def kdproxy(*arguments: str | Path, environment: dict[str, str] | None = None, stdin: bytes | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "kdproxy", *map(str, arguments)],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **(environment or {})},
            capture_output=True,
            input=stdin,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr.decode())

    return kdproxy


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run `kdproxy` in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # its data directory is nobody's here
    for name in [name for name in os.environ if name.startswith("KDPROXY_")]:
        monkeypatch.delenv(name)

    def say(*arguments: str | Path) -> Ran:
        done = CliRunner().invoke(main, [*map(str, arguments)])
        return Ran(done.exit_code, done.stdout_bytes, done.stderr)

    return say
