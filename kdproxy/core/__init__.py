"""The pure floor: keys, records, policy. It has no clock, no randomness and no I/O."""
