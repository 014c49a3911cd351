"""Loaders in this process: one thread of computation, and torch's own notices about it let by."""

import torch

torch.set_num_threads(1)
