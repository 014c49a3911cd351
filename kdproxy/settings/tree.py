"""The tree of settings: each field with its default, its unit in its name, and a sentence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdproxy.core.models import Upstream
from kdproxy.core.policy import Mode
from kdproxy.secret import Secret
from kdproxy.settings import parse
from kdproxy.settings.place import usual_data_directory
from kdproxy.settings.upstream import UpstreamSettings, upstreams


def _setting(default: Any, sentence: str, read: Callable[[Any], Any]) -> Any:
    metadata = {"sentence": sentence, "parse": read}
    if isinstance(default, tuple):
        return field(default_factory=lambda: default, metadata=metadata)
    if default is usual_data_directory:
        return field(default_factory=usual_data_directory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Names are the TOML keys; `KDPROXY_` and the name in capitals is the variable."""

    host: str = _setting("127.0.0.1", "Address to listen on; any other than loopback needs a token.", parse.host)
    port: int = _setting(8400, "Port to listen on; 0 takes a free one.", parse.integer(0, 65_535))
    port_file: Path | None = _setting(
        None, "File for the address, written once the proxy listens; `kdproxy ready` reads it.", parse.optional_path
    )
    data_dir: Path = _setting(
        usual_data_directory,
        "Directory of the journal and its index: everything that was paid for. Keep it outside any git checkout.",
        parse.path,
    )
    mode: Mode = _setting(Mode.CACHE, "What to do with cacheable requests.", parse.mode)
    upstreams: tuple[UpstreamSettings, ...] = _setting((), "Teacher APIs; none: the built-in ones.", upstreams)
    warm: tuple[Path, ...] = _setting((), "Files to fill the cache from at start.", parse.paths)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Host names, besides loopback's, that requests may use.", parse.text_list
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), "Origins of your own browser applications, `scheme://host:port`; all others are refused.", parse.origins
    )
    token_file: Path | None = _setting(None, "File with the proxy's token (or KDPROXY_TOKEN).", parse.optional_path)
    prices: Path | None = _setting(None, "TOML file with prices that override the built-in ones.", parse.optional_path)
    match_prompts: bool = _setting(True, "Whether recorded prompts answer requests with the same text.", parse.flag)
    allow_hosted_tools: bool = _setting(
        False, "Whether to cache answers of tools that run at the provider.", parse.flag
    )
    body_limit_bytes: int = _setting(64 << 20, "Largest body on cacheable paths, bytes.", parse.integer(1_024, 1 << 30))
    answer_limit_bytes: int = _setting(64 << 20, "Largest answer that is stored, bytes.", parse.integer(1_024, 1 << 30))
    memory_bytes: int = _setting(16 << 20, "Memory for recent answers, bytes.", parse.integer(0, 1 << 40))
    segment_bytes: int = _setting(
        256 << 20, "Size at which a journal file is sealed, bytes.", parse.integer(4_096, 1 << 40)
    )
    connect_seconds: float = _setting(10.0, "Longest wait for a connection to the upstream.", parse.number(0.1, 3_600))
    first_byte_seconds: float = _setting(
        600.0, "Longest wait for the beginning of the upstream's answer.", parse.number(0.1, 86_400)
    )
    read_seconds: float = _setting(
        600.0, "Longest wait for the next byte of an answer that has begun.", parse.number(0.1, 86_400)
    )
    total_seconds: float = _setting(
        3_600.0, "Longest that one call to the upstream may take in all.", parse.number(0.1, 604_800)
    )
    retry_seconds: float = _setting(
        1_800.0,
        "Longest time for retries of one call that cost nothing; a rate limit is not a failure.",
        parse.number(0, 604_800),
    )
    retry_attempts: int = _setting(
        0,
        "Most failed attempts at one call, whatever they cost; 0: by their kind, 3 if each may be billed.",
        parse.integer(0, 1_000),
    )
    fail_fast: bool = _setting(
        False, "Whether requests fail at once while the upstream is down, instead of being held.", parse.flag
    )
    check_upstreams: bool = _setting(
        True, "Whether the start checks that upstreams answer: a GET of their models, at no cost.", parse.flag
    )
    spent_policy: str = _setting(
        "fail",
        "When a quota is spent: fail at once, or park requests until it is available again.",
        parse.choice("fail", "park"),
    )
    max_in_flight: int = _setting(
        1_024,
        "Calls at once for one model and credential; at most half of the open files that the system allows.",
        parse.integer(1, 100_000),
    )
    patience_seconds: float = _setting(
        540.0,
        "How long an unsent request is held for a client that does not say its own limit.",
        parse.number(1, 604_800),
    )
    keep_alive_seconds: float = _setting(
        0.0,
        "How often a waiting client is sent bytes without meaning, after a status 200; 0: never.",
        parse.number(0, 600),
    )
    detached_max_seconds: float = _setting(
        900.0, "How long a sent call may run after its last client left.", parse.number(0, 86_400)
    )
    drain_seconds: float = _setting(
        60.0, "How long running calls may take to finish at shutdown.", parse.number(0, 3_600)
    )
    use_environment_proxy: bool = _setting(False, "Whether upstream calls obey HTTPS_PROXY and NO_PROXY.", parse.flag)
    log_level: str = _setting(
        "info", "Least severe log lines shown.", parse.choice("debug", "info", "warning", "error")
    )
    token: Secret | None = field(default=None, metadata={"sentence": "The proxy's token.", "parse": None})
    credentials: Mapping[str, tuple[Secret, ...]] = field(
        default_factory=dict, metadata={"sentence": "Upstream credentials, by name.", "parse": None}
    )

    def upstream_models(self) -> tuple[Upstream, ...]:
        """Return the configured upstreams as the router takes them."""
        return tuple(
            Upstream(
                name=upstream.name,
                url=upstream.url,
                provider=upstream.provider,
                billed=upstream.billed,
                end=upstream.end,
                choices=upstream.choices,
                keep_empty=upstream.keep_empty,
                key_headers=upstream.key_headers,
                ignore=upstream.ignore,
            )
            for upstream in self.upstreams
        )
