"""The path of one request: look up, lead or join, fetch, keep, answer. Asks ports, names no adapter."""
