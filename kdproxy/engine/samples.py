"""Which sample a request gets, with a run and without one."""

from itertools import count

from kdproxy.core.models import Address
from kdproxy.core.policy import Mode
from kdproxy.core.ports import Archive
from kdproxy.core.sampling import NEXT, Stored
from kdproxy.engine import lookup
from kdproxy.engine.call import Asked, Incoming
from kdproxy.engine.runs import Hold, Runs


class Samples:
    """Assigns samples to requests that belong to a run or name a sample. Event loop only."""

    def __init__(self, archive: Archive, runs: Runs) -> None:
        self._archive = archive
        self.runs = runs
        self._fresh: set[Address] = set()
        """Fresh samples that requests without a run wait for."""

    async def take(self, asked: Asked) -> tuple[Address, Hold | None]:
        """Return the address of the sample that a request gets, and its hold on it, which must be closed.

        Raises:
            KdproxyError: its attempt cannot be had.
        """
        incoming, question = asked.incoming, asked.question
        namespace, full_key = incoming.namespace, question.key
        base = Address(namespace, full_key)
        taking, ref = incoming.taking, incoming.run_ref
        if incoming.mode is Mode.BYPASS or (taking is None and not question.is_sampled):
            # What bypasses the cache is no sample; a question whose answers cannot differ has one.
            return base, None
        if ref is None:
            if not self.is_fresh(incoming):
                return base._replace(ordinal=0 if taking is None else taking.ordinal or 0), None
            return self._take_fresh(asked, base), None
        attempt = await self.runs.attempt(ref)
        hold = await attempt.hold(
            question.key,
            ref.scope,
            taking or NEXT,
            is_retry=incoming.is_retry,
            stored=self._stored(asked, base) if taking is not None else None,
        )
        return Address(namespace, full_key, hold.ordinal), hold

    @staticmethod
    def is_fresh(incoming: Incoming) -> bool:
        """Whether a request without a run waits for a sample that is not stored yet."""
        is_asked = incoming.taking is not None and incoming.taking.is_fresh
        return is_asked and incoming.run_ref is None and incoming.mode is not Mode.BYPASS

    def release_fresh(self, address: Address) -> None:
        """End the wait of a request without a run: if its sample is not stored, the next fresh one is the same."""
        self._fresh.discard(address)

    def _take_fresh(self, asked: Asked, base: Address) -> Address:
        is_stored = self._stored(asked, base)
        samples = (base._replace(ordinal=ordinal) for ordinal in count())
        address = next(each for each in samples if not is_stored(each.ordinal) and each not in self._fresh)
        self._fresh.add(address)
        return address

    def _stored(self, asked: Asked, base: Address) -> Stored:
        """Return what says whether a sample is stored. It looks once, and only if it is asked."""
        found: frozenset[int] | None = None

        def is_stored(ordinal: int) -> bool:
            nonlocal found
            if found is None:
                found = self._archive.stored_ordinals(base.namespace, base.key)
                old = lookup.old_address(self._archive, asked, base)
                if old is not None:
                    found |= self._archive.stored_ordinals(old.namespace, old.key)
            return ordinal in found

        return is_stored
