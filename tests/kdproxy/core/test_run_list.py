"""The list of runs: a copy shares it until it changes."""

import orjson
import pytest

from kdproxy.core.models import LineName
from kdproxy.core.run_event import Opened, RunRenamed
from kdproxy.core.run_list import RunList
from kdproxy.errors import RequestRefused

ORIGIN = "ab" * 12


def opened(runs: RunList, seq: int, label: str, token: str, of: int | None = None) -> None:
    run_id = None if of is None else LineName(ORIGIN, of)
    runs.take(Opened(label, token, 1.5, run_id), LineName(ORIGIN, seq))


def test_a_copy_is_independent_in_both_directions() -> None:
    runs = RunList()
    opened(runs, 1, "r", "1")
    copy = runs.copy()
    again = copy.copy()
    opened(runs, 2, "r", "2", of=1)
    opened(copy, 3, "s", "1")
    assert [len(run.attempts) for run in runs.runs.values()] == [2]
    assert [run.label for run in copy.runs.values()] == ["r", "s"]
    assert [run.label for run in again.runs.values()] == ["r"]
    assert runs.of_attempt(LineName(ORIGIN, 3)) is None
    assert copy.of_attempt(LineName(ORIGIN, 2)) is None


def test_a_copy_and_a_dump_cost_nothing_while_nothing_changes() -> None:
    runs = RunList()
    opened(runs, 1, "r", "1")
    copy = runs.copy()
    assert copy.runs is runs.runs
    assert copy.dump() is runs.dump()
    opened(runs, 2, "r", "2", of=1)
    assert copy.runs is not runs.runs
    assert copy.dump() != runs.dump()


def test_what_is_dumped_is_loaded() -> None:
    runs = RunList()
    opened(runs, 1, "r", "1")
    opened(runs, 2, "r", "two", of=1)
    runs.take(RunRenamed(LineName(ORIGIN, 1), "s", 2.0), LineName(ORIGIN, 3))
    loaded = RunList.load(orjson.loads(runs.dump()))
    assert loaded.runs == runs.runs
    opened(loaded, 2, "r", "two", of=1)
    assert loaded.runs == runs.runs


def test_an_unknown_name_suggests_the_nearest() -> None:
    runs = RunList()
    opened(runs, 1, "gsm8k", "monday")
    with pytest.raises(RequestRefused, match="Did you mean 'gsm8k'"):
        runs.known("gsm8")
    with pytest.raises(RequestRefused, match="Did you mean 'monday'"):
        runs.known("gsm8k").known_attempt("mondy")
