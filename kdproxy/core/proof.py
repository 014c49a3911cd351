"""How a proxy proves its identity: an HMAC of a challenge and of the port that was asked. Pure.

The secret is in the port file, which only its owner may read (docs/formats/port-file.md). The proof covers the port, so
that a process on another port cannot relay the challenge and the proof.
"""

import hashlib
import hmac
import re

CHALLENGE = re.compile(r"[0-9A-Za-z_-]{16,128}")


def proof_of(secret: str, challenge: str, port: int) -> str:
    """Return the proof, in hexadecimal digits."""
    return hmac.new(secret.encode(), f"kdproxy healthz\n{port}\n{challenge}".encode(), hashlib.sha256).hexdigest()


def is_proof(proof: object, secret: str, challenge: str, port: int) -> bool:
    """Whether a holder of the secret has answered this challenge on this port."""
    return isinstance(proof, str) and hmac.compare_digest(proof.encode(), proof_of(secret, challenge, port).encode())
