"""docs/recovery-test-plan.md names tests that exist and run, and leaves no line without one."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "recovery-test-plan.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


def test_every_line_names_a_test() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert len(lines) > 40, "the test still finds them"
    assert [line for line in lines if "::test_" not in line] == []


def test_every_named_test_is_collected() -> None:
    files = sorted({f"tests/trainhooks/{file}" for file, _ in NAMED})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    assert [f"{file}::{name}" for file, name in NAMED if f"tests/trainhooks/{file}::{name}" not in collected] == []
