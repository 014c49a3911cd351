"""Situations from public reports of jobs that ask one prompt several times behind a cache."""

import asyncio
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio


def question(number: int = 0, **settings: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"Task {number}"}], **settings}


def at(proxy: RunningProxy, attempt: str, scope: str = "") -> str:
    return f"{proxy.address}/runs/r/attempts/{attempt}{f'/scopes/{scope}' if scope else ''}/v1/chat/completions"


async def test_thirty_epochs_of_a_propensity_evaluation_replay_as_thirty_answers(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """inspect_ai#2580: of 30 sampled answers one was kept, and a new evaluation scored that one 30 times."""
    first = await asyncio.gather(*(send(at(proxy, "a"), question(temperature=1)) for _ in range(30)))
    again = await asyncio.gather(*(send(at(proxy, "b"), question(temperature=1)) for _ in range(30)))
    assert len({answer.body for answer in first}) == 30
    assert sorted(answer.body for answer in again) == sorted(answer.body for answer in first)
    assert teacher.count() == 30


async def test_repeats_of_many_tasks_in_one_batch_keep_their_answers(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """lm-evaluation-harness#3046: clones of one request shared a cache entry, and pass@k became pass@1."""

    async def evaluate(attempt: str) -> dict[int, set[bytes]]:
        asked = [number for number in range(8) for _ in range(4)]
        got = await asyncio.gather(*(send(at(proxy, attempt), question(number)) for number in asked))
        return {
            number: {answer.body for task, answer in zip(asked, got, strict=True) if task == number}
            for number in range(8)
        }

    first = await evaluate("a")
    assert all(len(answers) == 4 for answers in first.values())
    assert await evaluate("b") == first
    assert teacher.count() == 32


async def test_more_repeats_than_last_time_buy_only_the_difference(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """promptfoo#1431: `--repeat 3` and then `--repeat 5` should cost two calls, not five and not none."""
    for attempt, repeats in (("a", 3), ("b", 5), ("c", 5)):
        got = [await send(at(proxy, attempt), question()) for _ in range(repeats)]
        assert len({answer.body for answer in got}) == repeats
    assert teacher.count() == 5


async def test_other_sampling_settings_are_other_questions(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """lm-evaluation-harness#3881: a run at temperature 0.7 got the answers of an earlier one at 0."""
    greedy = [await send(at(proxy, "a"), question(temperature=0)) for _ in range(2)]
    warm = [await send(at(proxy, "a"), question(temperature=0.7)) for _ in range(2)]
    hot = [await send(at(proxy, "a"), question(temperature=0.7, top_p=0.9)) for _ in range(2)]
    assert [answer.headers.get("Kdproxy-Sample") for answer in warm + hot] == ["0", "1", "0", "1"]
    assert len({answer.body for answer in greedy + warm + hot}) == 5
    assert teacher.count() == 5


async def test_an_explicit_zero_with_several_choices_is_one_greedy_answer(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """dspy#10456: an explicit temperature of 0.0 was taken for one that is not given."""
    got = [await send(at(proxy, "a"), question(temperature=0.0, n=3)) for _ in range(2)]
    assert got[0].body == got[1].body
    assert teacher.count() == 1


async def test_rollouts_that_are_left_out_by_their_index_get_their_own_answers(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """NeMo Gym#1239: a resumed collection asks only for the (task, rollout) pairs that it lacks."""

    async def collect(attempt: str, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        got = await asyncio.gather(*(send(at(proxy, attempt, f"rollout-{r}"), question(task)) for task, r in pairs))
        return {pair: answer.body for pair, answer in zip(pairs, got, strict=True)}

    pairs = [(task, rollout) for task in range(4) for rollout in range(4)]
    first = await collect("a", pairs)
    lacking = [pair for pair in pairs if sum(pair) % 3 == 0]
    assert await collect("b", lacking[::-1]) == {pair: first[pair] for pair in lacking}
    assert len(set(first.values())) == 16
    assert teacher.count() == 16


async def test_the_same_seed_twice_is_one_answer_and_another_seed_another(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """limit-of-RLVR#2: a script varies `seed` to get different answers, and starts over after a crash."""
    for attempt in "ab":
        got = [await send(at(proxy, attempt), question(temperature=0.6, seed=seed)) for seed in range(4)]
        assert len({answer.body for answer in got}) == 4
    assert teacher.count() == 4


async def test_best_of_n_asks_again_after_an_answer_that_it_did_not_like(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """dspy#8745: each further try of a module got the answer that it had just rejected."""
    tries = [await send(at(proxy, "a"), question(temperature=1.0)) for _ in range(3)]
    assert len({answer.body for answer in tries}) == 3
    replayed = [await send(at(proxy, "b"), question(temperature=1.0)) for _ in range(3)]
    assert [answer.body for answer in replayed] == [answer.body for answer in tries]


async def test_two_jobs_on_one_cache_do_not_take_each_others_turns(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """promptfoo#360 asks for repeats beside a cache: here two jobs repeat one prompt at the same time."""

    async def job(run: str) -> list[bytes]:
        url = f"{proxy.address}/runs/{run}/v1/chat/completions"
        return [(await send(url, question())).body for _ in range(6)]

    one, other = await asyncio.gather(job("one"), job("other"))
    assert one == other  # each gets the samples 0 to 5, bought once
    assert len(set(one)) == 6
    assert teacher.count() == 6


async def test_a_new_model_that_takes_no_temperature_is_sampled(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """dspy#578: without a temperature in the request each answer of a list was the same one."""
    got = [await send(at(proxy, "a"), question(max_completion_tokens=100)) for _ in range(5)]
    assert len({answer.body for answer in got}) == 5
