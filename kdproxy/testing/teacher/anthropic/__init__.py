"""Anthropic's Messages API, as docs.claude.com/en/api describes it (2026)."""
