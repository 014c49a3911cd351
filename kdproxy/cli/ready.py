"""`kdproxy ready`: wait until the proxy of a port file serves and has proved that it is that one; print what to export.

For scripts. Nothing is sent to whoever listens there but a challenge: neither the token nor a key goes to a stranger.
"""

import http.client
import os
import secrets
import time
from pathlib import Path
from urllib.parse import urlsplit

import click
import orjson

from kdproxy.cli.options import say
from kdproxy.core.proof import is_proof
from kdproxy.errors import KdproxyError
from kdproxy.storage import port_file
from kdproxy.storage.port_file import Listening

_LOOK_SECONDS = 0.1
_ASK_SECONDS = 5.0


@click.command("ready")
@click.option("--port-file", "path", type=click.Path(path_type=Path), required=True, help="As given to serve.")
@click.option("--pid", type=int, help="The proxy's process ($!): ends at once if that ends.")
@click.option("--wait", "wait_seconds", type=float, default=600.0, show_default=True, help="Longest wait, seconds.")
def command(path: Path, pid: int | None, wait_seconds: float) -> None:
    """Wait until a proxy of yours serves; print the lines to export."""
    listening = _await(path, pid, wait_seconds)
    say(f"process {listening.pid} serves on {listening.address} and has proved that it is the one of {path}")
    click.echo(f"export OPENAI_BASE_URL={listening.address}/v1")
    click.echo(f"export ANTHROPIC_BASE_URL={listening.address}")
    click.echo(f"export GOOGLE_GEMINI_BASE_URL={listening.address}")


def _await(path: Path, pid: int | None, wait_seconds: float) -> Listening:
    ends_at = time.monotonic() + wait_seconds
    why = f"{path} is not there yet"
    while True:
        has_ended = pid is not None and not _is_alive(pid)  # before the look: what it left may still be read
        listening = port_file.read(path)
        if listening is not None:
            if pid is not None and listening.pid != pid:
                why = f"{path} is of process {listening.pid}, not {pid}"
            elif not _is_alive(listening.pid):
                why = f"process {listening.pid}, which {path} names, has ended"
            else:
                why = _doubt(listening)
                if not why:
                    return listening
        if has_ended:
            raise _not_ready(f"process {pid} has ended before it served ({why})", "Look at what it said.")
        if time.monotonic() >= ends_at:
            hint = "Look at what the proxy says; --wait sets how long to wait."
            raise _not_ready(f"no proxy was ready within {wait_seconds:g} s ({why})", hint)
        time.sleep(_LOOK_SECONDS)


def _doubt(listening: Listening) -> str:
    """Challenge who listens there; return why it is not (yet) to be trusted, or nothing."""
    parts = urlsplit(listening.address)
    challenge = secrets.token_hex(16)
    # Never by HTTP_PROXY: http.client does not read it.
    connection = http.client.HTTPConnection(parts.hostname or "", listening.port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", f"/_kdproxy/healthz?challenge={challenge}")
        response = connection.getresponse()
        status, members = response.status, orjson.loads(response.read(65_536))
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        return f"who listens on {listening.address} is no kdproxy ({type(error).__name__})"
    finally:
        connection.close()
    proof = members.get("proof") if isinstance(members, dict) else None
    if not is_proof(proof, listening.secret, challenge, listening.port):
        return f"who listens on {listening.address} is another proxy: it has no proof"
    if status != 200:
        return f"it is {members.get('status', 'not well')}"
    return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        # One that has ended and that its parent has not waited for yet (proc_pid_stat(5)).
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):
        return True


def _not_ready(what: str, hint: str) -> KdproxyError:
    return KdproxyError(f"Not ready: {what}.", hint=hint, code="not_ready")
