"""OpenAI's members, and those that servers, gateways and other providers add to its dialect."""

from typing import Any

from kdproxy.providers import tool
from kdproxy.providers.member import Member, Standing, is_given, rows, table

_OPENAI = "openai 3.57.0 (Python), parameter types, read 2026-11-30"
_ANTHROPIC = "platform.claude.com, prompt caching, read 2026-11"
_AZURE = "learn.microsoft.com, Azure OpenAI On Your Data reference, read 2026-11"
_LITELLM = "docs.litellm.ai, proxy clientside auth and completion input, read 2026-11"
_OPENROUTER = "openrouter.ai/docs, API reference, plugins and web search, read 2026-11-30"
_VLLM = "docs.vllm.ai, OpenAI-compatible server, extra parameters, read 2026-11"
_SGLANG = "docs.sglang.ai, sampling parameters and native API, read 2026-11"
_QWEN = "help.aliyun.com, Model Studio, web search, read 2026-11"
_XAI = "docs.x.ai, live search and deferred completions, read 2026-11"

_TRAVEL = (
    Member("stream", Standing.OUT, "how the answer is transferred; a sample keeps one recording per form", _OPENAI),
    Member("stream_options", Standing.OUT, "what the stream carries besides the answer", _OPENAI),
)
_LABELS = (
    *rows(Standing.OUT, "an identifier for abuse reports", _OPENAI, "user", "safety_identifier"),
    Member("metadata", Standing.OUT, "labels for the provider's dashboard", _OPENAI),
    Member("store", Standing.OUT, "whether the provider keeps a copy; compared at look-up (below)", _OPENAI),
    *rows(Standing.OUT, "groups requests for observability", _OPENROUTER, "session_id", "trace"),
    *rows(Standing.OUT, "names the request in the server's log", _VLLM, "request_id"),
    *rows(Standing.OUT, "names the request in the server's log", _SGLANG, "rid"),
    *rows(Standing.OUT, "logging at the gateway", _LITELLM, "litellm_call_id", "litellm_session_id"),
    *rows(Standing.OUT, "logging at the gateway", _LITELLM, "litellm_trace_id", "litellm_metadata"),
    *rows(Standing.OUT, "logging at the gateway", _LITELLM, "langfuse_public_key", "langfuse_host"),
    Member("priority", Standing.OUT, "order of requests at the server", _VLLM),
)
_CACHE = (
    Member("prompt_cache_key", Standing.OUT, "routes to a warm cache: price and latency, never the answer", _OPENAI),
    Member("prompt_cache_retention", Standing.OUT, "how long the provider's cache is kept", _OPENAI),
    Member("prompt_cache_options", Standing.OUT, "the provider's cache: price and latency", _OPENAI),
    Member("cache_salt", Standing.OUT, "who may share the server's prefix cache", _VLLM),
    Member("cache_control", Standing.OUT, "the provider's cache: price and latency", _OPENROUTER),
)
_PREWARM = (Member("prompt_cache_options.prewarm", Standing.STATE, "fills the cache and asks for no answer", _OPENAI),)
_CREDENTIALS = (
    Member(
        position="*credential*",
        standing=Standing.CREDENTIAL,
        reason="the billed account: `api_key`, `aws_secret_access_key`, `vertex_credentials`, `langfuse_secret`, ...",
        source=_LITELLM,
    ),
    *rows(Standing.CREDENTIAL, "the account that is billed", _LITELLM, "fallbacks[].*credential*"),
    *rows(
        Standing.CREDENTIAL,
        "the account that is billed",
        _LITELLM,
        "user_config.model_list[].litellm_params.*credential*",
    ),
    *rows(Standing.CREDENTIAL, "credential for the tool's server", _OPENAI, "tools[].authorization"),
    *rows(Standing.CREDENTIAL, "credential for the tool's server", _OPENAI, "tools[].headers.*credential*"),
    *rows(Standing.HIDDEN, "sent to the tool's server", _OPENAI, "tools[].headers", "tools[].server_url"),
    *rows(Standing.HIDDEN, "headers that the gateway forwards", _LITELLM, "extra_headers", "headers"),
    *rows(Standing.CREDENTIAL, "the same, if it is a credential", _LITELLM, "extra_headers.*credential*"),
    *rows(Standing.CREDENTIAL, "the same, if it is a credential", _LITELLM, "headers.*credential*"),
)
_CHAT_CREDENTIALS = (
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "data_sources[].parameters.authentication"),
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "data_sources[].parameters.*credential*"),
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "data_sources[].parameters.key"),
    *rows(
        Standing.CREDENTIAL,
        "credential for the embedding model",
        _AZURE,
        "data_sources[].parameters.embedding_dependency.authentication",
    ),
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "dataSources[].parameters.authentication"),
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "dataSources[].parameters.*credential*"),
    *rows(Standing.CREDENTIAL, "credential for the data source", _AZURE, "dataSources[].parameters.key"),
    *rows(
        Standing.CREDENTIAL,
        "credential for the embedding model",
        _AZURE,
        "dataSources[].parameters.embeddingDependency.authentication",
    ),
)


def _searches_live(parameters: Any) -> bool:
    return bool(parameters) and not (isinstance(parameters, dict) and parameters.get("mode") == "off")


def _is_enabled(value: Any) -> bool:
    """Whether a switch is on: `true`, `"on"`, `{"enable": true}`."""
    if isinstance(value, dict):
        return any(value.get(name) not in (None, False) for name in ("enable", "enabled", "type"))
    return bool(value) and value not in ("off", "false", "none")


_NOT_PURE = (
    Member("models[]", Standing.HOSTED, "the same, among fallbacks", _OPENROUTER, tool.searches),
    Member("model", Standing.HOSTED, "a model or suffix that searches the web", _OPENROUTER, tool.searches),
    Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _OPENAI, tool.hosted),
    Member("plugins", Standing.HOSTED, "web search, file parsing and others at the gateway", _OPENROUTER),
    Member("web_search_options", Standing.HOSTED, "searches the web", _OPENAI, is_given),
    Member("search_parameters", Standing.HOSTED, "searches the web; `mode: off` does not", _XAI, _searches_live),
    Member("enable_search", Standing.HOSTED, "searches the web", _QWEN, _is_enabled),
    Member("enable_enhancement", Standing.HOSTED, "searches the web", "cloud.tencent.com, Hunyuan, read 2026-11"),
    Member("web_search", Standing.HOSTED, "searches the web", "cloud.baidu.com, Qianfan, read 2026-11", _is_enabled),
    Member(
        "venice_parameters.enable_web_search",
        Standing.HOSTED,
        "searches the web",
        "docs.venice.ai, API parameters, read 2026-11",
        _is_enabled,
    ),
    Member("data_sources", Standing.HOSTED, "reads an index that changes", _AZURE),
    Member("dataSources", Standing.HOSTED, "reads an index that changes", _AZURE),
    Member("vector_store_ids", Standing.HOSTED, "reads an index that changes", _LITELLM),
    Member("deferred", Standing.STATE, "the answer is fetched later", _XAI),
    Member("session_params", Standing.STATE, "depends on state at the server", _SGLANG),
    Member("cached_content", Standing.STATE, "depends on state at the provider", _LITELLM),
    Member(
        "extra_body.google.cached_content",
        Standing.STATE,
        "depends on state at the provider",
        "ai.google.dev, OpenAI compatibility, read 2026-11",
    ),
)
_IN = (
    *rows(Standing.IN, "another model may answer", _OPENROUTER, "models", "route", "provider", "transforms"),
    *rows(Standing.IN, "another model may answer", _LITELLM, "fallbacks"),
    *rows(Standing.IN, "may block or score the answer", _OPENAI, "moderation"),
    *rows(Standing.IN, "price and speed, and which machines answer", _OPENAI, "service_tier"),
)
_MESSAGES = (
    *rows(
        Standing.OUT,
        "the provider's cache: price and latency",
        _ANTHROPIC,
        *("messages[].cache_control", "messages[].content[].cache_control", "tools[].cache_control"),
        *("tools[].function.cache_control",),
    ),
    *rows(
        Standing.OUT,
        "the provider's cache: price and latency",
        _OPENAI,
        "messages[].content[].prompt_cache_breakpoint",
    ),
    *rows(Standing.OUT, "where the gateway marks the cache", _LITELLM, "cache_control_injection_points"),
)

CHAT = table(_TRAVEL, _LABELS, _CACHE, _PREWARM, _MESSAGES, _CREDENTIALS, _CHAT_CREDENTIALS, _NOT_PURE, _IN)
COMPLETIONS = table(_TRAVEL, _LABELS, _CACHE, _PREWARM, _CREDENTIALS, _NOT_PURE, _IN)

_ITEMS = "input[]"
RESPONSES = table(
    _TRAVEL,
    _LABELS,
    _CACHE,
    _PREWARM,
    _CREDENTIALS,
    _NOT_PURE,
    _IN,
    rows(
        Standing.OUT,
        "the provider's cache: price and latency",
        _OPENAI,
        *(f"{_ITEMS}.content[].prompt_cache_breakpoint", f"{_ITEMS}.output[].prompt_cache_breakpoint"),
        f"{_ITEMS}.output.prompt_cache_breakpoint",
    ),
    rows(Standing.OUT, "the provider's cache: price and latency", _OPENROUTER, f"{_ITEMS}.content[].cache_control"),
    rows(Standing.CREDENTIAL, "credential for the tool's server", _OPENAI, f"{_ITEMS}.tools[].authorization"),
    rows(Standing.CREDENTIAL, "credential for the tool's server", _OPENAI, f"{_ITEMS}.tools[].headers.*credential*"),
    rows(
        Standing.HIDDEN,
        "sent to the tool's server",
        _OPENAI,
        *(f"{_ITEMS}.tools[].headers", f"{_ITEMS}.tools[].server_url"),
    ),
    (
        Member(f"{_ITEMS}.tools[]", Standing.HOSTED, "a tool that runs at the provider", _OPENAI, tool.hosted),
        Member(_ITEMS, Standing.STATE, "`item_reference`: the item is at the provider", _OPENAI, tool.is_reference),
        Member("background", Standing.STATE, "the answer is fetched later", _OPENAI),
        Member("conversation", Standing.STATE, "the question depends on state at the provider", _OPENAI, is_given),
        Member("prompt", Standing.STATE, "a stored prompt without a version can change", _OPENAI, tool.is_unversioned),
        Member("generate", Standing.STATE, "`false` asks for no answer", _OPENAI, lambda value: value is False),
        Member("client_metadata", Standing.OUT, "labels of the client", "github.com/openai/codex, read 2026-11"),
    ),
    rows(Standing.IN, "changes which part of the input the model sees", _OPENAI, "context_management", "truncation"),
    rows(Standing.IN, "changes which part of the input the model sees", _OPENAI, "image", "image.context_compression"),
    rows(Standing.IN, "which models and policies answer", _OPENAI, "access_programs"),
)
EMBEDDINGS = table(_LABELS, _CREDENTIALS)
SCORING = table(_LABELS, _CREDENTIALS)
MODERATIONS = table(_CREDENTIALS)
IMAGES = table(_TRAVEL[:1], rows(Standing.OUT, "an identifier for abuse reports", _OPENAI, "user"), _CREDENTIALS)
SPEECH = table((Member("stream_format", Standing.OUT, "how the answer is transferred", _OPENAI),), _CREDENTIALS)
TRANSCRIPTIONS = table(_TRAVEL[:1], _CREDENTIALS)
