"""trainhooks: checkpoints, dataset position and metrics for PyTorch loops.

This release of the distribution carries the proxy; the training side has its name and its floors reserved here
and exports nothing yet.
"""
