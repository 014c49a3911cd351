"""Which sample a request's own header asks for."""

import pytest
from multidict import CIMultiDict

from kdproxy.core.run_ref import taking_of
from kdproxy.errors import RequestRefused


def test_two_headers_that_differ_are_refused() -> None:
    """The first one alone would be given, and the other silently not."""
    with pytest.raises(RequestRefused):
        taking_of(CIMultiDict([("kdproxy-sample", "1"), ("Kdproxy-Sample", "2")]))
