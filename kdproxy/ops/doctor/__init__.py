"""The checks of `kdproxy doctor`: the machine, the data directory, the environment and the upstreams.

They write nothing and send only GETs. Each returns its results; none raises because of an odd system.
"""
