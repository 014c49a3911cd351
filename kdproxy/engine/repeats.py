"""Counts sampled questions that one client asked again without a run, and got the same answer to each time.

A client is a credential and a User-Agent, from its first connection until its last one closes: a script that is started
again is another client, and replays what it has asked before on purpose.
"""

import itertools
import logging

log = logging.getLogger("kdproxy.engine")

MOST_QUESTIONS = 200_000
"""Questions that are remembered, of all clients: about 20 MB. Then all are forgotten."""

RUN_HINT = "For a new answer each time start the script with: kdproxy run -- CMD"


class Asker:
    """A client that has connections open."""

    __slots__ = ("connections", "name", "number")

    def __init__(self, name: tuple[str, str], number: int) -> None:
        self.name = name
        self.number = number
        self.connections = 0


class Repeats:
    """Event loop only."""

    def __init__(self, most_questions: int = MOST_QUESTIONS) -> None:
        self.requests = 0
        """Requests that got an answer which their client had already been given."""
        self.questions = 0
        """The questions that they asked."""
        self._most_questions = most_questions
        self._numbers = itertools.count()
        self._open: dict[tuple[str, str], Asker] = {}
        self._asked: dict[int, bool] = {}
        """By client and question, as a hash: whether it was asked again."""

    def connect(self, credential: str, user_agent: str) -> Asker:
        """Count one more connection of a client; it must leave."""
        name = credential, user_agent
        asker = self._open.get(name)
        if asker is None:
            asker = self._open[name] = Asker(name, next(self._numbers))
        asker.connections += 1
        return asker

    def leave(self, asker: Asker) -> None:
        """Count one connection less."""
        asker.connections -= 1
        if not asker.connections:
            del self._open[asker.name]

    def note(self, asker: Asker, key: str) -> None:
        """Note that a client was given the one answer to a sampled question."""
        place = hash((asker.number, key))
        was_repeated = self._asked.get(place)
        if was_repeated is None:
            if len(self._asked) >= self._most_questions:
                self._asked.clear()
            self._asked[place] = False
            return
        if not self.requests:
            log.warning(
                "a client asked the same question again, with a temperature that is not 0, and got the same answer: "
                f"without a run each question has one. {RUN_HINT}",
                extra={"key": key, "user_agent": asker.name[1]},
            )
        self.requests += 1
        if not was_repeated:
            self._asked[place] = True
            self.questions += 1

    def as_dict(self) -> dict[str, int]:
        """Return the counts for `stats`."""
        return {"requests": self.requests, "questions": self.questions}


def advice_on(repeats: dict[str, int]) -> str | None:
    """Return one line for people on the counts of `as_dict`; None: there is nothing to say."""
    requests, questions = repeats.get("requests", 0), repeats.get("questions", 0)
    if not requests:
        return None
    asked = "1 request" if requests == 1 else f"{requests:,} requests"
    of = "a sampled question" if questions == 1 else f"{questions:,} sampled questions"
    return f"{asked} asked {of} again and got the same answer: without a run each question has one. {RUN_HINT}"
