"""Which values of a configuration must not be stored: recognised by name or by form."""

import re

STARS = "***"
_NAME = re.compile(
    r"api_?keys?|secret|passw(or)?d|credential|authorization"
    r"|^token$|^(hf|hub|access|auth|api|bearer|refresh|wandb|github)_?tokens?$"
    r"|^(openai|anthropic|gemini|google|azure|mistral|deepseek|openrouter|together|groq|wandb|hf|aws|access)_?keys?$",
    re.IGNORECASE,
)
_LOOK = re.compile(
    r"\b(?:sk|pk|rk|hf|gh[oprsu]|github_pat|xox[abps]|gsk|glpat)[-_][A-Za-z0-9_-]{16,}"
    r"|\bAIza[A-Za-z0-9_-]{30,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
)
"""How providers begin their keys: OpenAI, Anthropic, Stripe, Hugging Face, GitHub, Slack, Groq, GitLab, Google, AWS."""
_USER = re.compile(r"(?<=://)[^/@\s]+@")


def is_named(name: str) -> bool:
    """Whether something of this name is a credential."""
    return _NAME.search(name) is not None


def without(text: str) -> str:
    """Return the text with its keys starred and without the user and password of a URL."""
    return _LOOK.sub(STARS, _USER.sub("", text))
