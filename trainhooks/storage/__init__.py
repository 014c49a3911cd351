"""Files of a session: atomic, durable, readable without torch."""
