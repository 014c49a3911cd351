"""Providers with OpenAI's dialect and their own limits: one table each, as data."""

import re

from kdproxy.core.limits import DAY, MONTH, SECOND, Dimension, LimitHeaders, Quota
from kdproxy.core.pacing.day import next_utc_midnight
from kdproxy.core.provider_rules import Meaning, Row, Rules
from kdproxy.providers.rules_openai import EVENT_STATUSES

_DEEPSEEK = "api-docs.deepseek.com/quick_start/error_codes and /rate_limit, read 2026-11-25"
_VLLM = "docs.vllm.ai and vllm-project/vllm#49330, read 2026-11"
_MISTRAL = "docs.mistral.ai/deployment/laplateforme/tier and mistralai/client-ts#169, read 2026-11-25"
_TOGETHER = "docs.together.ai/docs/serverless/rate-limits, read 2026-11-25"
_GROQ = "console.groq.com/docs/rate-limits and /errors, read 2026-11-25"
_OPENROUTER = "openrouter.ai/docs/api_reference/errors-and-debugging and /limits, read 2026-11-25"

DEEPSEEK = Rules(
    name="deepseek",
    hosts=("api.deepseek.com",),
    rows=(
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_DEEPSEEK),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_DEEPSEEK),
        Row(meaning=Meaning.RATE_LIMIT, statuses=frozenset({429}), source=_DEEPSEEK),
    ),
    # It limits concurrent requests per account and model, not requests per minute.
    finds_rate=False,
    event_statuses=EVENT_STATUSES,
)

VLLM = Rules(
    name="vllm",
    rows=(Row(meaning=Meaning.OVERLOAD, statuses=frozenset({503}), source=_VLLM),),
    finds_rate=False,
    event_statuses={**EVENT_STATUSES, "InternalServerError": 500},
)

MISTRAL = Rules(
    name="mistral",
    hosts=("api.mistral.ai", "codestral.mistral.ai"),
    limits=(
        *(
            LimitHeaders(quota=quota, limit=f"x-ratelimit-limit-{name}", remaining=f"x-ratelimit-remaining-{name}")
            for quota, name in (
                (Quota(Dimension.REQUESTS), "req-minute"),
                (Quota(Dimension.REQUESTS, SECOND), "req-second"),
                (Quota(Dimension.TOKENS), "tokens-minute"),
                (Quota(Dimension.TOKENS, MONTH), "tokens-month"),
            )
        ),
        *(
            # The older names, with one common reset.
            LimitHeaders(
                quota=quota,
                limit=f"{prefix}-limit-{name}",
                remaining=f"{prefix}-remaining-{name}",
                reset="ratelimitbysize-reset",
            )
            for prefix in ("x-ratelimitbysize", "ratelimitbysize")
            for quota, name in ((Quota(Dimension.TOKENS), "minute"), (Quota(Dimension.TOKENS, MONTH), "month"))
        ),
    ),
    rows=(
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_MISTRAL),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_MISTRAL),
        Row(meaning=Meaning.RATE_LIMIT, statuses=frozenset({429}), source=_MISTRAL),
    ),
    event_statuses=EVENT_STATUSES,
)

TOGETHER = Rules(
    name="together",
    hosts=("api.together.xyz", "api.together.ai"),
    # Per second; `reset` is how long to wait.
    limits=(
        LimitHeaders(
            quota=Quota(Dimension.REQUESTS, SECOND),
            limit="x-ratelimit-limit",
            remaining="x-ratelimit-remaining",
            reset="x-ratelimit-reset",
        ),
        LimitHeaders(
            quota=Quota(Dimension.TOKENS, SECOND),
            limit="x-tokenlimit-limit",
            remaining="x-tokenlimit-remaining",
        ),
    ),
    rows=(
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_TOGETHER),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_TOGETHER),
        # The older type credit_limit is a rate limit despite its name (bespokelabsai/curator#205).
        Row(
            meaning=Meaning.RATE_LIMIT,
            statuses=frozenset({429}),
            names=frozenset({"dynamic_request_limited", "dynamic_token_limited", "credit_limit"}),
            source=_TOGETHER,
        ),
        Row(meaning=Meaning.OVERLOAD, statuses=frozenset({503}), source=_TOGETHER),
    ),
    event_statuses=EVENT_STATUSES,
)

GROQ = Rules(
    name="groq",
    hosts=("api.groq.com",),
    # `*-requests` are per day, `*-tokens` per minute.
    limits=(
        LimitHeaders(
            quota=Quota(Dimension.REQUESTS, DAY),
            limit="x-ratelimit-limit-requests",
            remaining="x-ratelimit-remaining-requests",
            reset="x-ratelimit-reset-requests",
        ),
        LimitHeaders(
            quota=Quota(Dimension.TOKENS),
            limit="x-ratelimit-limit-tokens",
            remaining="x-ratelimit-remaining-tokens",
            reset="x-ratelimit-reset-tokens",
        ),
    ),
    rows=(
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_GROQ),
        Row(meaning=Meaning.FINAL, statuses=frozenset({413}), source=_GROQ),
        Row(meaning=Meaning.OVERLOAD, statuses=frozenset({498}), source=_GROQ),
        Row(meaning=Meaning.RATE_LIMIT, names=frozenset({"rate_limit_exceeded"}), source=_GROQ),
    ),
    event_statuses=EVENT_STATUSES,
)

OPENROUTER = Rules(
    name="openrouter",
    hosts=("openrouter.ai",),
    # Sent on refusals only.
    limits=(
        LimitHeaders(
            quota=Quota(Dimension.REQUESTS),
            limit="x-ratelimit-limit",
            remaining="x-ratelimit-remaining",
            reset="x-ratelimit-reset",
        ),
    ),
    rows=(
        # Running and recent requests fill the budget although credit is left: it resets by itself, after `retry-after`.
        Row(
            meaning=Meaning.RATE_LIMIT,
            statuses=frozenset({402}),
            names=frozenset({"openrouter_in_flight_budget", "in_flight_budget_exhausted"}),
            source=_OPENROUTER,
        ),
        # This single request costs more than that budget.
        Row(
            meaning=Meaning.FINAL,
            statuses=frozenset({402}),
            names=frozenset({"weight_exceeds_budget"}),
            source=_OPENROUTER,
        ),
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source=_OPENROUTER),
        Row(
            meaning=Meaning.SPENT,
            statuses=frozenset({403}),
            names=frozenset({"openrouter_guardrail_budget", "openrouter_workspace_budget", "openrouter_key_limit"}),
            source=_OPENROUTER,
        ),
        # The day is in UTC. Older answers have only the words (Gitlawb/openclaude#936), newer ones the source
        # (Avarok-Cybersecurity/atlas#543).
        Row(
            meaning=Meaning.SPENT_TODAY,
            statuses=frozenset({429}),
            names=frozenset({"openrouter_free_tier_daily"}),
            source=_OPENROUTER,
        ),
        Row(
            meaning=Meaning.SPENT_TODAY,
            statuses=frozenset({429}),
            message=re.compile("free-models-per-day"),
            source=_OPENROUTER,
        ),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source=_OPENROUTER),
        # Moderation or a guardrail: the request is at fault, not the key.
        Row(meaning=Meaning.FINAL, statuses=frozenset({403}), source=_OPENROUTER),
        Row(meaning=Meaning.RATE_LIMIT, statuses=frozenset({429}), source=_OPENROUTER),
        Row(meaning=Meaning.OVERLOAD, statuses=frozenset({502, 503}), source=_OPENROUTER),
    ),
    daily_reset=next_utc_midnight,
    event_statuses=EVENT_STATUSES,
)
