"""The pure floor: keys, records, policy. No clock, no randomness, no I/O."""
