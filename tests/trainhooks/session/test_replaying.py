"""The certificate's line is seen by whoever starts a training, once, unless they chose what they see."""

import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = """
import logging, sys
if sys.argv[2] != "plain":
    logging.basicConfig(level=sys.argv[2])
from trainhooks import ProgressTracker
out, loss = sys.argv[1], float(sys.argv[3])
for attempt in (1, 2):
    tracker = ProgressTracker({}, out, 10)
    tracker.resume_at(0 if attempt == 1 else 2)
    for step in range(0 if attempt == 1 else 2, 4 + attempt):
        tracker.update_metrics(step, loss=0.5 if attempt == 1 else loss)
    tracker.close()
print(tracker.certificate)
"""
EXACT = "resumed at step 2: exact (3 of 3 recorded steps compared, by loss alone)"
DIVERGED = (
    "resumed at step 2: diverged, first at step 2: loss: was 0.5, is 0.25 (1 of 3 recorded steps compared, by loss"
    " alone). With equal data, other kernels, another GPU, number of threads or precision do this. On the same machine:"
    " something in the loop is in no checkpoint."
)


@pytest.mark.parametrize(
    ("level", "loss", "said"),
    [
        ("plain", "0.5", [EXACT]),
        ("INFO", "0.5", [f"INFO:trainhooks:{EXACT}"]),
        ("WARNING", "0.5", []),
        ("plain", "0.25", [DIVERGED]),
        ("WARNING", "0.25", [f"WARNING:trainhooks:{DIVERGED}"]),
    ],
)
def test_the_line_is_seen_once(tmp_path: Path, level: str, loss: str, said: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(tmp_path), level, loss], capture_output=True, text=True, check=True
    )
    assert [line for line in done.stderr.splitlines() if "resumed" in line] == said
    assert done.stdout.strip() == (EXACT if loss == "0.5" else DIVERGED)
