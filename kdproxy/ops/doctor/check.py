"""The result of one check, and what runs checks one after the other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from kdproxy.errors import ConfigError, KdproxyError


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing fails, is lost, is open to others or costs money because of it."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A result."""

    name: str
    """What was checked, in one or two words; stable."""
    state: State
    text: str
    """What was found, and what it means for money or data. Without credentials."""
    hint: str = ""
    """What to do; always given with a problem."""


Checks = Iterator[Check]


def ok(name: str, text: str) -> Check:
    """Nothing to do."""
    return Check(name=name, state=State.OK, text=text)


def note(name: str, text: str, hint: str = "") -> Check:
    """Worth knowing."""
    return Check(name=name, state=State.NOTE, text=text, hint=hint)


def problem(name: str, text: str, hint: str) -> Check:
    """Something to fix."""
    return Check(name=name, state=State.PROBLEM, text=text, hint=hint)


def run_checks(checks: Iterable[tuple[str, Callable[[], Iterable[Check]]]]) -> list[Check]:
    """Run named checks. One that fails is a result like any other, and the others still run."""
    found: list[Check] = []
    for name, check in checks:
        try:
            found += check()
        except ConfigError as error:
            found += [problem(name, sentence(each), error.hint) for each in error.problems]
        except KdproxyError as error:
            found.append(problem(name, error.message, error.hint))
        except Exception as error:  # an odd system must not hide what the other checks find
            found.append(note(name, f"Could not be checked: {reason_of(error)}."))
    return found


def sentence(mistake: str) -> str:
    """Return a mistake of the configuration with a full stop."""
    return mistake if mistake.endswith((".", "?")) else f"{mistake}."


def reason_of(error: Exception) -> str:
    """Return why something failed; never an empty text."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
