"""Observers: what happened, as log lines."""
