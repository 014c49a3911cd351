"""`kdproxy ready`: wait until the proxy of a port file serves and has proved its identity; print the lines to export.

For scripts. The process that listens there is sent a challenge only: an unknown process gets no token and no key.
"""

import http.client
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
from kdproxy.storage.lock import is_alive
from kdproxy.storage.port_file import Listening

_POLL_SECONDS = 0.1
_REQUEST_SECONDS = 5.0


@click.command("ready")
@click.option("--port-file", "path", type=click.Path(path_type=Path), required=True, help="Port file given to serve.")
@click.option("--pid", type=int, help="The proxy's process ($!): stop waiting if it exits.")
@click.option("--wait", "wait_seconds", type=float, default=600.0, show_default=True, help="Longest wait, seconds.")
def command(path: Path, pid: int | None, wait_seconds: float) -> None:
    """Wait until your proxy serves; print the lines to export."""
    listening = _await(path, pid, wait_seconds)
    say(f"process {listening.pid} serves on {listening.address} and has proved that it is the proxy of {path}")
    click.echo(f"export OPENAI_BASE_URL={listening.address}/v1")
    click.echo(f"export ANTHROPIC_BASE_URL={listening.address}")
    click.echo(f"export GOOGLE_GEMINI_BASE_URL={listening.address}")


def _await(path: Path, pid: int | None, wait_seconds: float) -> Listening:
    ends_at = time.monotonic() + wait_seconds
    why = f"{path} does not exist yet"
    while True:
        # Checked before the read: a port file that it left may still be valid.
        has_ended = pid is not None and not is_alive(pid)
        listening = port_file.read(path)
        if listening is not None:
            if pid is not None and listening.pid != pid:
                why = f"{path} belongs to process {listening.pid}, not {pid}"
            elif not is_alive(listening.pid):
                why = f"process {listening.pid}, which {path} names, has exited"
            else:
                why = _doubt(listening)
                if not why:
                    return listening
        if has_ended:
            raise _not_ready(f"process {pid} exited before it served ({why})", "Read its output.")
        if time.monotonic() >= ends_at:
            hint = "Read the proxy's output; --wait sets how long to wait."
            raise _not_ready(f"no proxy was ready within {wait_seconds:g} s ({why})", hint)
        time.sleep(_POLL_SECONDS)


def _doubt(listening: Listening) -> str:
    """Challenge the process that listens there; return why it cannot be trusted (yet), or an empty text."""
    parts = urlsplit(listening.address)
    challenge = secrets.token_hex(16)
    # Never through HTTP_PROXY: http.client does not read it.
    connection = http.client.HTTPConnection(parts.hostname or "", listening.port, timeout=_REQUEST_SECONDS)
    try:
        connection.request("GET", f"/_kdproxy/healthz?challenge={challenge}")
        response = connection.getresponse()
        status, members = response.status, orjson.loads(response.read(65_536))
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        return f"the process that listens on {listening.address} is not kdproxy ({type(error).__name__})"
    finally:
        connection.close()
    proof = members.get("proof") if isinstance(members, dict) else None
    if not is_proof(proof, listening.secret, challenge, listening.port):
        return f"the process that listens on {listening.address} is another proxy: it has no proof"
    if status != 200:
        return f"its state is {members.get('status', 'unhealthy')}"
    return ""


def _not_ready(what: str, hint: str) -> KdproxyError:
    return KdproxyError(f"Not ready: {what}.", hint=hint, code="not_ready")
