"""When the next request of a lane may go: quotas, back-off, the circuit breaker, limits found by probing. Pure."""
