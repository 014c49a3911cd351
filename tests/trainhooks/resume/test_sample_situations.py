"""Situations that people have reported where a resumed training got other answers of a teacher, or bought them again.

Real sessions in one process, with a run in memory in place of the proxy; tests/trainhooks/resume/test_samples.py has
real ones.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from trainhooks import training_progress_context
from trainhooks.core.cursor import Cursor
from trainhooks.errors import RunUnavailable, SamplesNotRestored
from trainhooks.host import run_client

TOTAL, EVERY = 8, 2


class Died(Exception):
    """Stands for a kill: nothing is saved after it."""


class MemoryRun:
    """A run of kdproxy: the n-th time that a question is asked it gets the n-th answer."""

    def __init__(self) -> None:
        self.log: list[list[str]] = []
        self.used: list[str] = []
        self.bought: set[tuple[str, int]] = set()
        self.is_away = False
        self.posts = 0

    def ask(self, question: str) -> str:
        ordinal = self.used.count(question)
        self.used.append(question)
        self.bought.add((question, ordinal))
        return f"{question}#{ordinal}"

    def cursor(self, *, is_durable: bool = True) -> Cursor:
        self._check()
        self.log.append(list(self.used))
        return Cursor("a/0", str(len(self.log) - 1), 0, len(self.used))

    def restore(self, cursor: Cursor) -> int:
        self._check()
        self.posts += 1
        assert cursor.after is not None
        self.used = list(self.log[int(cursor.after)])
        return 0

    def _check(self) -> None:
        if self.is_away:
            raise RunUnavailable("The kdproxy of this run is away.", hint="Start it.")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> MemoryRun:
    made = MemoryRun()
    monkeypatch.setattr(run_client, "of_environment", lambda: made)
    return made


Body = Callable[[Any], list[str]]


def train(
    out: Path, make: Callable[[], Any], body: Body, *, dies_at: int | None = None, total: int = TOTAL, **options: Any
) -> dict[int, list[str]]:
    """Train; returns the answers of each step."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    state = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    found: dict[int, list[str]] = {}
    drift = options.pop("drift", None)
    try:
        with training_progress_context(
            {"seed": 1}, out, total, state=state, checkpoint_every_steps=EVERY, drift=drift, database=False
        ) as progress:
            progress.loader(make(), **options)
            for step, batch in progress.steps():
                found[step] = body(batch)
                if step == dies_at:
                    raise Died
                progress.update_metrics(step=step, loss=float(len(found[step])))
    except Died:
        pass
    return found


def resumed(run: MemoryRun, path: Path, make: Callable[[], Any], body: Body, **options: Any) -> None:
    """Compare a training that died and was resumed with one that did not die."""
    first = train(path / "a", make, body, dies_at=5, **options)
    second = train(path / "a", make, body, **options)
    bought, run.used = set(run.bought), []
    whole = train(path / "b", make, body, **options)
    assert {**first, **second} == whole
    assert all(first[step] == second[step] for step in first.keys() & second.keys())
    assert run.bought == bought, "the uninterrupted training needed other answers"


class Prompts:
    """A map-style data set that asks nobody."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return index % 2


def test_on_policy_distillation_scores_in_the_loop(run: MemoryRun, tmp_path: Path) -> None:
    """The student's samples are sent to the teacher within the step (GKD)."""
    resumed(run, tmp_path, Prompts, lambda batch: [run.ask(f"score {each}") for each in batch.tolist()], batch_size=2)


def test_rollouts_in_groups_are_resumed_in_the_middle(run: MemoryRun, tmp_path: Path) -> None:
    """GRPO asks one prompt k times; a resume that starts over at sample 0 trains on the same group again."""
    resumed(run, tmp_path, Prompts, lambda batch: [run.ask("one prompt") for _ in range(4)], batch_size=1)


def test_a_data_set_that_generates_when_it_is_read(run: MemoryRun, tmp_path: Path) -> None:
    """The answer of an index depends on how often it was read: a loader's state alone does not bring it back."""

    class Generating(Prompts):
        def __getitem__(self, index: int) -> Any:
            return run.ask(f"q{index % 2}")

    resumed(run, tmp_path, Generating, list, batch_size=3)


def test_a_stream_without_a_state_is_read_again_without_buying(run: MemoryRun, tmp_path: Path) -> None:
    """Skipping to the place reads the stream from its beginning, and asks for all of it again."""

    class Stream(IterableDataset[str]):
        def __iter__(self) -> Iterator[str]:
            for number in range(40):
                yield run.ask(f"q{number % 3}")

    resumed(run, tmp_path, Stream, list, batch_size=2)


def test_a_stateful_loader_of_the_users_own(run: MemoryRun, tmp_path: Path) -> None:
    """StatefulDataLoader and its like keep their place, and nothing of the teacher's."""

    class Stateful:
        place = 0

        def __iter__(self) -> Iterator[list[str]]:
            while True:
                self.place += 1
                yield [run.ask("q"), run.ask(f"q{self.place % 2}")]

        def state_dict(self) -> dict[str, int]:
            return {"place": self.place}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.place = state["place"]

    resumed(run, tmp_path, Stateful, list)


def test_a_data_set_and_a_judge_in_the_loop_share_a_run(run: MemoryRun, tmp_path: Path) -> None:
    class Generating(Prompts):
        def __getitem__(self, index: int) -> Any:
            return run.ask(f"q{index % 2}")

    resumed(run, tmp_path, Generating, lambda batch: [*batch, run.ask("judge"), run.ask("q0")], batch_size=2)


def test_a_requeued_job_that_died_before_its_first_checkpoint(run: MemoryRun, tmp_path: Path) -> None:
    def body(batch: Any) -> list[str]:
        return [run.ask("q")]

    first = train(tmp_path / "a", Prompts, body, dies_at=1)
    second = train(tmp_path / "a", Prompts, body)
    assert first == {step: second[step] for step in first}
    assert Counter(run.used) == {"q": TOTAL}


def test_a_job_that_is_preempted_again_and_again(run: MemoryRun, tmp_path: Path) -> None:
    found: dict[int, list[str]] = {}
    for dies_at in (1, 3, 3, 5, 7, None):
        found |= train(tmp_path / "a", Prompts, lambda batch: [run.ask("q")], dies_at=dies_at)
    assert [found[step] for step in range(TOTAL)] == [[f"q#{step}"] for step in range(TOTAL)]
    assert len(run.bought) == TOTAL


def test_a_step_that_failed_is_done_again_after_a_restart(run: MemoryRun, tmp_path: Path) -> None:
    """An error within the loop, caught outside and saved: the batch comes again with its own answers."""
    model = nn.Linear(1, 1)

    def session(fails: bool) -> list[str]:
        got: list[str] = []
        state = {"model": model}
        with training_progress_context({"seed": 1}, tmp_path / "a", 4, state=state, database=False) as progress:
            progress.loader(Prompts(), batch_size=1)
            try:
                for step, _ in progress.steps():
                    got.append(run.ask("q"))
                    if fails and step == 2:
                        raise Died
                    progress.update_metrics(step=step, loss=1.0)
            except Died:
                progress.save_checkpoint()
        return got

    assert session(fails=True) == ["q#0", "q#1", "q#2"]
    assert session(fails=False) == ["q#2", "q#3"]


def test_a_proxy_that_is_away_at_a_save_costs_no_checkpoint_and_is_said(
    run: MemoryRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def body(batch: Any) -> list[str]:
        run.is_away = True
        return []

    train(tmp_path / "a", Prompts, body, dies_at=5)
    assert "may get other samples: The kdproxy of this run is away." in caplog.text
    run.is_away = False
    train(tmp_path / "a", Prompts, lambda batch: [])
    assert "The teacher's samples are not exact" in caplog.text


def test_a_proxy_that_is_away_at_a_resume_is_refused_unless_it_is_allowed(
    run: MemoryRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a", Prompts, lambda batch: [run.ask("q")], dies_at=5)
    run.is_away = True
    with pytest.raises(SamplesNotRestored, match="Nothing was trained or bought"):
        train(tmp_path / "a", Prompts, lambda batch: [])
    train(tmp_path / "a", Prompts, lambda batch: [], drift={"samples": "allow"})
    assert "they were not restored" in caplog.text


def test_a_resume_without_the_run_is_said(
    run: MemoryRun, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "a", Prompts, lambda batch: [run.ask("q")], dies_at=5)
    monkeypatch.setattr(run_client, "of_environment", lambda: None)
    train(tmp_path / "a", Prompts, lambda batch: [])
    assert "KDPROXY_RUN_URL is not set" in caplog.text
