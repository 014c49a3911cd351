"""Asks the archive for the answer to a question: by its key, then by the key that version 1 gave it."""

from functools import partial

from kdproxy.core.models import Address, Answer, Form, Question
from kdproxy.core.ports import Archive
from kdproxy.engine.call import Asked
from kdproxy.providers import replay


def find(archive: Archive, asked: Asked, address: Address) -> Answer | None:
    """Return the stored answer to a question, or None.

    An answer of which the provider keeps no copy is none for a client that asks for one: it will fetch or continue it.
    A stream that was fetched without usage is none for a client that asks for usage. The second answer is stored beside
    it, and each client gets the first that fits. JSON that the upstream gave in place of a stream answers who asks for
    a stream, as it did then; JSON that was asked for as JSON never does.
    """
    answer = _find(archive, asked.question, address)
    if answer is None and (old := old_address(archive, asked, address)) is not None:
        answer = _find(archive, asked.question, old)
    return answer


def _find(archive: Archive, question: Question, address: Address) -> Answer | None:
    or_json = partial(_stands_in, question) if question.form is Form.SSE else None
    # Most questions take any answer; to ask for each hit takes five calls.
    fits = partial(_fits, question) if question.wants_copy or question.wants_stream_usage else None
    return archive.find(address, question.form, fits, or_json=or_json)


def has_form(archive: Archive, asked: Asked, address: Address, form: Form) -> bool:
    """Whether a question has a stored answer in a form, be it one that cannot answer this request."""
    old = old_address(archive, asked, address)
    return archive.find(address, form) is not None or (old is not None and archive.find(old, form) is not None)


def old_address(archive: Archive, asked: Asked, address: Address) -> Address | None:
    """Return where version 1 of the key would have put the answer, if there can be one."""
    if not archive.has_v1_keys or (v1_key := asked.v1_key) is None:
        return None
    return address._replace(key=v1_key)


def _stands_in(question: Question, answer: Answer) -> bool:
    return answer.asked_form is question.form and _fits(question, answer)


def _fits(question: Question, answer: Answer) -> bool:
    return (answer.has_copy is not False or not question.wants_copy) and replay.has_enough(answer, question)
