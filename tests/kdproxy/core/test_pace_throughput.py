"""How many calls a server can answer before a deadline: each part of the rule, by itself."""

import math

from kdproxy.core.pacing.throughput import Throughput


def test_a_server_that_answers_long_before_the_deadline_is_not_bounded() -> None:
    """Ten at once in 6 s say nothing where 60 s are allowed; 10 s do."""
    throughput = Throughput()
    throughput.take(60.0, 0.0)
    for second in range(10):
        throughput.completed(10, 6.0, float(second))
    assert throughput.bound == math.inf
    for second in range(40):
        throughput.completed(10, 10.0, 10.0 + second)
    assert throughput.bound == 30.0


def test_answers_that_were_counted_hold_where_the_law_says_less() -> None:
    """Those that waited long beside few: a burst had left by then. Sixty in a minute are one a second all the same."""
    throughput = Throughput()
    throughput.take(20.0, 0.0)
    for each in range(60):
        throughput.completed(5, 10.0, each / 2)
    assert throughput.bound == 10.0


def test_the_shortest_deadline_counts_until_it_is_five_minutes_old() -> None:
    throughput = Throughput()
    throughput.take(10.0, 0.0)
    throughput.take(100.0, 1.0)
    throughput.completed(10, 5.0, 2.0)
    assert throughput.bound == 10.0
    throughput.take(100.0, 301.0)
    throughput.completed(10, 5.0, 302.0)
    assert throughput.bound == math.inf
