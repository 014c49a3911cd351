"""What trainhooks knows: pure, without torch, clock, randomness or I/O."""
