"""kdproxy: a local caching proxy between distillation scripts and paid teacher APIs.

It is a command, not a library; clients use it by their base URL:
    kdproxy serve       start the proxy; `ready` waits for it in scripts
    kdproxy warm        fill the cache from files; `export` writes the stored answers
    kdproxy stats       what is stored and what was spent; `verify` checks it
    kdproxy doctor      check this machine, the data directory and the upstreams
    kdproxy forget      withdraw bad answers; `scrub` removes credentials
    kdproxy config      the effective settings

For tests of your own scripts:
    kdproxy.testing.teacher     an HTTP server that behaves as the paid providers do
    kdproxy.testing.proxy       a proxy inside a test

How it is built: docs/architecture.md.
"""

__version__ = "0.1.0"
