"""The client side: calls to the teacher API."""
