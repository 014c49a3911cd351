"""Connections that fail and come back."""

from trainhooks.core.outage import Outages, describe


def test_an_outage_lasts_from_the_first_failure_to_the_next_success() -> None:
    outages = Outages()
    outages.failed(describe(ConnectionError("a")), 10.0)
    outages.failed(describe("b"), 14.0)
    assert outages.recovered(20.0) == 10.0
    assert outages.recovered(21.0) is None
    assert (outages.failures, outages.recoveries, outages.down_seconds) == (2, 1, 10.0)


def test_an_error_is_reported_without_what_may_be_a_key() -> None:
    class RateLimited(Exception):
        status_code = 429

    secret = "sk" + "-proj-" + "a1b2" * 8
    failure = describe(RateLimited(f"Incorrect key provided: {secret}. Please wait."))
    assert (failure.error, failure.status) == ("RateLimited", 429)
    assert failure.message == "Incorrect key provided: ***. Please wait."


def test_a_long_message_is_cut() -> None:
    assert len(describe("word " * 1_000).message) == 500
