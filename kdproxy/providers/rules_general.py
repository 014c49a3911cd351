"""The table for an unknown upstream: the most common header names, and errors with the same meaning everywhere."""

from kdproxy.core.limits import Dimension, LimitHeaders, Quota
from kdproxy.core.provider_rules import Rules
from kdproxy.core.retry import COMMON_ROWS
from kdproxy.providers.rules_anthropic import ANTHROPIC
from kdproxy.providers.rules_openai import EVENT_STATUSES, X_RATELIMIT

GENERAL = Rules(
    name="general",
    limits=(
        *X_RATELIMIT,
        *ANTHROPIC.limits,
        # draft-ietf-httpapi-ratelimit-headers, version 03, and common use. No dimension in the name: requests, in a
        # window given by the reset.
        *(
            LimitHeaders(
                quota=Quota(Dimension.REQUESTS),
                limit=f"{prefix}-limit",
                remaining=f"{prefix}-remaining",
                reset=f"{prefix}-reset",
            )
            for prefix in ("x-ratelimit", "ratelimit")
        ),
    ),
    rows=COMMON_ROWS,
    event_statuses={**ANTHROPIC.event_statuses, **EVENT_STATUSES},
)
