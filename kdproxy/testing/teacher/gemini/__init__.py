"""Google's Gemini API, as ai.google.dev/api describes it (2026)."""
