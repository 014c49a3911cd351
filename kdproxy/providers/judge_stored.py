"""Judges a stored answer by the current rules: would it be stored if it came now? Pure."""

from kdproxy.core import sse
from kdproxy.core.models import Entry, Form, Upstream
from kdproxy.providers.base import ONE_ANSWER, Ask, Broken, Complete, End, Facts, Judgement, json_object
from kdproxy.providers.question import endpoint_named


def judge_stored(entry: Entry, upstream: Upstream | None) -> Judgement:
    """Judge the recording of an entry, with the settings of its upstream (None: the defaults).

    Raises:
        KeyError: the entry's endpoint is not known to this release.
    """
    endpoint = endpoint_named(entry.provider, entry.endpoint)
    criteria = ONE_ANSWER._replace(choices=_choices(entry))
    if upstream is not None:
        criteria = criteria._replace(end=End(upstream.end), keeps_empty=upstream.keep_empty)
        if upstream.choices == "as-served":
            criteria = criteria._replace(choices=None)
    if entry.answer.form is not Form.SSE:
        return endpoint.judge(entry.answer.body, criteria)
    judge = endpoint.judge_stream(criteria)
    for piece in sse.pieces(entry.answer.body):
        judge.take(piece)
    return judge.finish()


def _choices(entry: Entry) -> int | None:
    """Return the number of answers that the stored request asks for; None: not known."""
    endpoint = endpoint_named(entry.provider, entry.endpoint)
    members = None if entry.request is None else json_object(entry.request)
    if members is None or endpoint.path.search(entry.path) is None:
        return None
    facts = endpoint.read(Ask(path=entry.path, query=entry.query, members=members))
    return facts.choices if isinstance(facts, Facts) else None


def reason_not_kept(entry: Entry, upstream: Upstream | None) -> str | None:
    """Return why the current rules reject an entry; None: they accept it, or have no rule for its endpoint."""
    judgement = _judged(entry, upstream)
    return judgement.reason if isinstance(judgement, Broken) else None


def is_empty(entry: Entry) -> bool:
    """Whether a stored answer is empty, whatever its upstream's settings."""
    judgement = _judged(entry, None)
    return isinstance(judgement, Broken) and judgement.is_empty


def _judged(entry: Entry, upstream: Upstream | None) -> Judgement:
    try:
        return judge_stored(entry, upstream)
    except KeyError:
        return Complete()
