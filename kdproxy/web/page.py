"""The page for a browser: what this is, whether it works, where the documentation is.

It is served without a token, so it shows no more than `healthz`, and whether a script needs a run: no upstream, no
path, no number, no release.
It is self-contained: no script, no image, no request (its icon is empty, else a browser would request it upstream).
"""

import base64
import hashlib
import html

from aiohttp import web

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;"
    "color:#1f2328;background:#fff}code{background:#f0f1f3;padding:.1em .3em;border-radius:4px}"
    "@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#1b1d20}code{background:#2b2e33}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATES = {
    "ok": "The proxy works: stored answers are served, and new calls are accepted.",
    "degraded": "The disk cannot be written: stored answers are served, new calls wait. Free some disk space.",
    "draining": "The proxy is shutting down: calls under way are finished, new calls are refused.",
}
_REPEATS = """
<p>A client has asked a sampled question again and got the same answer: without a run each question has one answer.
For a new answer each time start the script with <code>kdproxy run -- CMD</code></p>"""


def wants_page(request: web.BaseRequest) -> bool:
    """Whether a browser asks: API clients do not accept text/html by name."""
    return request.method == "GET" and "text/html" in request.headers.get("Accept", "").lower()


def page(status: str, host: str, *, has_repeats: bool) -> web.Response:
    """Return the page.

    Args:
        status: as `healthz` has it.
        host: the request's Host, which the Host guard has accepted.
        has_repeats: whether a client got the same answer again to a sampled question.
    """
    base = html.escape(f"http://{host}")
    advice = _REPEATS if has_repeats else ""
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kdproxy</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>kdproxy</h1>
<p>This is kdproxy, a local caching proxy between distillation scripts and paid teacher APIs.
Point a client at it: <code>export OPENAI_BASE_URL={base}/v1</code></p>
<p>{html.escape(_STATES[status])} To see what is stored and what it cost: <code>kdproxy stats</code></p>{advice}
<p>Documentation: <code>kdproxy --help</code>, and the folder <code>docs</code> of the source
(start with <code>docs/README.md</code>)</p>
</body></html>
"""
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=_HEADERS)
