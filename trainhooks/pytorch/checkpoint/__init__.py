"""The state of a training, captured, written, read and put back."""
