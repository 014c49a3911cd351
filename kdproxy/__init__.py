"""kdproxy: a local caching proxy between distillation scripts and paid teacher APIs."""

__version__ = "0.1.0"
