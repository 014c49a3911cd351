"""The part that knows torch: state, random numbers, data position, checkpoints of them."""
