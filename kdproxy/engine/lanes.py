"""Lanes: one pace for all calls to one (upstream, credential, model). A 429 for one of them pauses all."""

from dataclasses import dataclass

from kdproxy.core.ports import Clock

LaneId = tuple[str, str, str]
"""Upstream, credential fingerprint, model."""


@dataclass(slots=True)
class Lane:
    """The pace of one lane."""

    open_at: float = 0.0
    """Monotonic time before which nothing is sent."""

    def pause(self, until: float) -> None:
        """Send nothing before `until`."""
        self.open_at = max(self.open_at, until)

    async def wait_turn(self, clock: Clock) -> None:
        """Return when a call may be sent."""
        while (wait := self.open_at - clock.monotonic()) > 0:
            await clock.sleep(wait)


class Lanes:
    """All lanes by their identity."""

    def __init__(self) -> None:
        self._lanes: dict[LaneId, Lane] = {}

    def lane(self, identity: LaneId) -> Lane:
        """Return a lane, made when first asked for."""
        lane = self._lanes.get(identity)
        if lane is None:
            lane = self._lanes[identity] = Lane()
        return lane
