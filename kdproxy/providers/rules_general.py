"""What holds for an upstream that nobody knows: the names that most use, the errors that mean the same everywhere."""

from kdproxy.core.limits import Dimension, LimitHeaders, Quota
from kdproxy.core.provider_rules import Meaning, Row, Rules
from kdproxy.providers.rules_anthropic import ANTHROPIC
from kdproxy.providers.rules_openai import EVENT_STATUSES, SPENT_NAMES, X_RATELIMIT

_DRAFT = "draft-ietf-httpapi-ratelimit-headers, version 03, and common use"

GENERAL = Rules(
    name="general",
    limits=(
        *X_RATELIMIT,
        *ANTHROPIC.limits,
        # Without a dimension in the name: requests, in a window that the reset tells.
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
    rows=(
        Row(meaning=Meaning.SPENT, names=SPENT_NAMES, source=_DRAFT),
        Row(meaning=Meaning.SPENT, statuses=frozenset({402}), source="RFC 9110 section 15.5.3"),
        Row(meaning=Meaning.CREDENTIAL, statuses=frozenset({401}), source="RFC 9110 section 15.5.2"),
    ),
    event_statuses={**ANTHROPIC.event_statuses, **EVENT_STATUSES},
)
