"""The `trainhooks` command line. Never loads torch."""
