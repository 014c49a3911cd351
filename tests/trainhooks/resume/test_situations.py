"""Resumes that went wrong in public reports, by their causes: the certificate names each, mostly before a step runs."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.trainhooks.conftest import Zygote
from trainhooks.storage import session

JOB = Path(__file__).with_name("job_situations.py")
PREEMPTED = 75


def run(zygote: Zygote, out: Path, situation: str, kill: str = "never") -> int:
    out.mkdir(exist_ok=True)
    return zygote.run(JOB, out, situation, kill, output=out / "output.txt").wait()


def certificate(out: Path) -> dict[str, Any]:
    members = session.read(out / "progress" / session.NAME)
    assert members is not None
    found = members["attempts"][-1]["certificate"]
    assert isinstance(found, dict)
    return found


def resumed(zygote: Zygote, out: Path, situation: str, kill: str) -> dict[str, Any]:
    assert run(zygote, out, situation, kill) == (PREEMPTED if kill == "term" else -signal.SIGKILL)
    assert run(zygote, out, situation) == 0, (out / "output.txt").read_text()
    return certificate(out)


@pytest.mark.parametrize(
    ("situation", "field", "what"),
    [
        ("wide-moments", "state", "optimizer.state.0.momentum: was float64[8, 4], is float32[8, 4]"),
        ("average", "state", "average.rate: was "),
        ("decay", "state", "optimizer.param_groups[0].weight_decay: was "),
        ("pretrained", "state", "model.0.weight: was "),
        ("late-schedule", "state", "optimizer.param_groups[0].lr: was 0.1, is 0.05"),
        ("window", "state", "gradient.model.0.weight: was float32[8, 4], is not there"),
        ("stream", "batch ids", "batch ids of the stream 'more': was "),
    ],
)
def test_it_is_named_before_more_is_trained(
    zygote: Zygote, tmp_path: Path, situation: str, field: str, what: str
) -> None:
    """After a clean preemption nothing was recorded that could be compared with."""
    said = resumed(zygote, tmp_path, situation, "term")
    assert (said["verdict"], said["field"]) == ("diverged", field)
    assert said["difference"].startswith(what)
    assert said["compared_steps"] <= 1


@pytest.mark.parametrize(
    ("situation", "verdict", "fields"),
    [
        ("shuffled-anew", "diverged", {"batch"}),
        ("stale-schedule", "diverged", {"learning rate"}),
        ("rebuilt", "same data, numerics differ", {"parameters"}),
        ("masters", "same data, numerics differ", {"parameters", "loss"}),
    ],
)
def test_what_no_state_shows_is_named_by_the_first_steps(
    zygote: Zygote, tmp_path: Path, situation: str, verdict: str, fields: set[str]
) -> None:
    said = resumed(zygote, tmp_path, situation, "kill:5")
    assert said["verdict"] == verdict
    assert said["field"] in fields


@pytest.mark.parametrize("kill", ["term", "kill:4"])
def test_without_a_fault_it_says_what_was_compared(zygote: Zygote, tmp_path: Path, kill: str) -> None:
    said = resumed(zygote, tmp_path, "none", kill)
    if kill == "term":
        assert said["verdict"] == "no difference found"
        assert said["at_start"] == ["state", "batch ids", "random numbers"]
        assert said["from_step"] == 6
    else:
        assert said["verdict"] == "exact"
        assert {"loss", "learning rate", "parameters"} <= set(said["compared"])


def test_content_is_compared_where_the_step_began_and_left_no_row(zygote: Zygote, tmp_path: Path) -> None:
    """Killed in the first step after the save: its batch is on the disk before its body runs."""
    assert run(zygote, tmp_path, "shuffled-anew", "kill:4") == -signal.SIGKILL
    assert run(zygote, tmp_path, "shuffled-anew") == 0
    said = certificate(tmp_path)
    assert (said["verdict"], said["field"]) == ("diverged", "batch")
