"""Provider dialects: where a request or answer holds its model, stream flag, usage and proof of completeness. Pure."""
