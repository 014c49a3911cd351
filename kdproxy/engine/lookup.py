"""Asks the archive for the answer to a question: by its key, then by the key that version 1 gave it."""

from kdproxy.core.models import Address, Answer
from kdproxy.core.ports import Archive
from kdproxy.engine.call import Asked


def find(archive: Archive, asked: Asked, address: Address) -> Answer | None:
    """Return the stored answer to a question, or None."""
    answer = archive.find(address, asked.question.form)
    if answer is None and (v1_key := asked.v1_key) is not None:
        answer = archive.find(address._replace(key=v1_key), asked.question.form)
    return answer
