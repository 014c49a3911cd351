"""The command line: status, verify, ls, tail. Never loads torch."""
