"""The process and machine that a job runs in: signals, launcher, time left, source code. Never loads torch."""
