"""OpenAI's endpoints, as platform.openai.com/docs/api-reference describes them (2026)."""
