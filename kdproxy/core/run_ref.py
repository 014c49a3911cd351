"""How a request names a run and a sample: `/runs/NAME[/attempts/TOKEN][/scopes/SCOPE]` in its path, and a header."""

import re
from typing import NamedTuple

from kdproxy.core.header import combined
from kdproxy.core.models import Headers
from kdproxy.core.sampling import Taking
from kdproxy.errors import RequestRefused

PREFIX = "/runs/"
SAMPLE_HEADER = "Kdproxy-Sample"
"""Request header: `N`, `fresh` or `collapse`. Reply header: the ordinal of the sample."""
MOST_SAMPLES = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@+=-]{0,127}")
_COLLAPSE = Taking(ordinal=0)
_FRESH = Taking(is_fresh=True)


class RunRef(NamedTuple):
    """What a path says about a run."""

    run: str
    attempt: str | None = None
    """Its token; None: the run's last attempt."""
    scope: str = ""


def split(path: str) -> tuple[RunRef | None, str]:
    """Split a run off the beginning of a raw path.

    Raises:
        RequestRefused: the path begins as a run's and is none.
    """
    if not path.startswith(PREFIX):
        return None, path
    parts = path.split("/")
    ref, at = RunRef(_checked(parts[2], "run", path)), 3
    for member, word in (("attempt", "attempts"), ("scope", "scopes")):
        if parts[at : at + 1] == [word]:
            ref = ref._replace(**{member: _checked("".join(parts[at + 1 : at + 2]), member, path)})
            at += 2
    return ref, "/" + "/".join(parts[at:])


def check_name(name: str) -> str:
    """Return a name of a run, an attempt or a scope.

    Raises:
        RequestRefused: it is not one.
    """
    return _checked(name, "run", None)


def _checked(name: str, what: str, path: str | None) -> str:
    if _NAME.fullmatch(name) is None:
        shown = "" if path is None else ", as in /runs/NAME/attempts/TOKEN/scopes/SCOPE/v1"
        raise RequestRefused(
            f"The name of the {what} is empty, longer than 128 characters, does not begin with a letter or digit, or "
            "has characters other than letters, digits and . _ ~ : @ + = -",
            hint=f"Nothing was sent to the provider. Use a short plain name{shown}.",
            code="bad_run_name",
        )
    return name


def taking_of(headers: Headers) -> Taking | None:
    """Return which sample a request's own header asks for; None: it does not say.

    Raises:
        RequestRefused: the header says something else.
    """
    value = combined(headers, SAMPLE_HEADER)
    if value is None:
        return None
    word = value.strip().lower()
    if word == "fresh":
        return _FRESH
    if word == "collapse":
        return _COLLAPSE
    if word.isascii() and word.isdigit() and len(word) <= 7 and int(word) < MOST_SAMPLES:
        return Taking(ordinal=int(word))
    raise RequestRefused(
        f"{SAMPLE_HEADER} is neither a number below {MOST_SAMPLES:,} nor 'fresh' nor 'collapse'.",
        hint="Nothing was sent to the provider. Samples are counted from 0.",
        code="bad_sample",
    )
