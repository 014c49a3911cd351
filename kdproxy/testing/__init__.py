"""What tests need to run kdproxy without a paid provider.

`kdproxy.testing.teacher` stands in for one; `kdproxy.testing.proxy` runs a proxy for it, in the test's own loop or
as a process that can be killed. Nothing is imported here: a teacher alone needs no proxy.
"""
