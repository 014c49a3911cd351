"""Asks the upstreams and a running proxy what costs nothing: the list of models, and `healthz`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamClient, UpstreamRequest, UpstreamResponse
from kdproxy.core.routing import BUILT_IN
from kdproxy.engine.reach import Finding, Reach
from kdproxy.errors import KdproxyError
from kdproxy.ops.doctor.check import Check, Checks, note, ok, problem
from kdproxy.ops.doctor.machine import Reading, reading_of
from kdproxy.storage.lock import Owner

_HEALTH_BYTES = 65_536


@dataclass(slots=True)
class FreeClient:
    """Sends nothing but GETs without a body, and notes the time that each server says."""

    client: UpstreamClient
    now: Callable[[], float]
    readings: list[Reading] = field(default_factory=list)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request. Raises UpstreamFailed."""
        assert request.method == "GET"
        assert not request.body
        response = await self.client.send(request)
        reading = reading_of(urlsplit(request.url).netloc, response.headers, self.now())
        if reading is not None:
            self.readings.append(reading)
        return response


def check_reach(findings: Sequence[tuple[Finding, bool]]) -> Checks:
    """Say of each upstream whether it answers.

    Args:
        findings: each with whether the upstream is known to be used: configured, or with a key in the environment.
    """
    for finding, is_used in findings:
        upstream = finding.upstream
        text = f"{upstream.name} ({upstream.url}): {finding.text}"
        match finding.reach:
            case Reach.REACHED:
                yield ok("upstreams", text)
            case Reach.AWAY | Reach.MISTAKE if not is_used:
                yield note("upstreams", text, "Nothing to do if you do not use it.")
            case Reach.AWAY:
                yield problem(
                    "upstreams", text, "Check that it runs, and the network, VPN and web proxy of this machine."
                )
            case Reach.MISTAKE:
                yield problem("upstreams", text, "Correct its URL, certificate or key: waiting does not fix it.")


async def check_health(client: UpstreamClient, owner: Owner) -> Check:
    """Ask the proxy that owns the directory how it is."""
    request = UpstreamRequest(method="GET", url=f"{owner.address}/_kdproxy/healthz", headers=_plain(), body=b"")
    try:
        response = await client.send(request)
        try:
            body = await response.read(_HEALTH_BYTES)
        finally:
            response.close()
        members = orjson.loads(body)
        status = members.get("status") if isinstance(members, dict) else None
    except (KdproxyError, TimeoutError, orjson.JSONDecodeError) as error:
        why = error.message if isinstance(error, KdproxyError) else "its answer cannot be read"
        return problem(
            "owner",
            f"Process {owner.pid} ({owner.command}) owns the directory and does not answer at {owner.address}: {why}",
            f"Read its log. If it hangs: kill {owner.pid}; what it stored is kept.",
        )
    if status == "degraded":
        return problem(
            "owner",
            f"The proxy at {owner.address} cannot store answers, so it buys nothing: {members.get('reason')}",
            str(members.get("hint") or "Read its log."),
        )
    if status == "draining":
        return note("owner", f"The proxy at {owner.address} (process {owner.pid}) is shutting down.")
    return ok("owner", f"process {owner.pid} ({owner.command}) serves at {owner.address}")


def _plain() -> HeaderPairs:
    return (("Accept", "application/json"),)


def upstreams_to_check(
    configured: Sequence[Upstream], remembered: Mapping[str, str], has_key: Callable[[str], bool]
) -> list[tuple[Upstream, bool]]:
    """Return the upstreams to check, each with whether it is known to be used.

    Args:
        remembered: by the data directory, of all starts: NAME to URL.
        has_key: whether the environment has a key for a built-in upstream. One without is not asked.
    """
    if configured:
        return [(upstream, True) for upstream in configured]
    built_in = {upstream.name: upstream for upstream in BUILT_IN}
    others = [Upstream(name=name, url=url) for name, url in remembered.items() if name not in built_in]
    keyed = [upstream for upstream in BUILT_IN if has_key(upstream.name)]
    # Where other upstreams were served, a key in the environment may be theirs, and the machine may reach no other.
    return [(upstream, False) for upstream in others] or [(upstream, True) for upstream in keyed]
