"""Which sample a request gets, with a run and without one."""

from kdproxy.core.call_event import KEY_DIGITS
from kdproxy.core.models import Address
from kdproxy.core.policy import Mode
from kdproxy.core.ports import Archive
from kdproxy.core.sampling import NEXT, Ordinals, Stored
from kdproxy.engine import lookup
from kdproxy.engine.call import Asked
from kdproxy.engine.runs import Hold, Runs


class Samples:
    """Assigns samples to requests that belong to a run or name a sample. Event loop only."""

    def __init__(self, archive: Archive, runs: Runs) -> None:
        self._archive = archive
        self.runs = runs
        self._fresh = Ordinals()
        """Fresh samples of requests without a run: held until their call has ended, never given again."""

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
            if taking is None or not taking.is_fresh:
                return base._replace(ordinal=0 if taking is None else taking.ordinal or 0), None
            return base._replace(ordinal=self._take_fresh(asked, base)), None
        attempt = await self.runs.attempt(ref)
        hold = await attempt.hold(
            question.key,
            ref.scope,
            taking or NEXT,
            is_retry=incoming.is_retry,
            stored=self._stored(asked, base) if taking is not None else None,
        )
        return Address(namespace, full_key, hold.ordinal), hold

    def _take_fresh(self, asked: Asked, base: Address) -> int:
        stored = self._stored(asked, base)
        assert asked.incoming.taking is not None
        return self._fresh.take(base.key[:KEY_DIGITS], "", asked.incoming.taking, stored)

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
