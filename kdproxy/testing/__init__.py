"""What tests need to run kdproxy without a paid provider; `kdproxy.testing.teacher` stands in for one."""
