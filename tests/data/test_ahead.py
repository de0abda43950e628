import threading
import time

import pytest

from data.ahead import ahead


def threads_alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def square(number):
    return number * number


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("threads", "most"), [(1, 0), (1, 5), (3, 1), (4, 40)])
def test_results_come_in_order(threads, most):
    def late(number):
        time.sleep(0.002 * (number % 3))  # later ones are done before earlier ones
        return number * number

    assert list(ahead(late, range(20), threads, most)) == [(n, n * n) for n in range(20)]
    assert not threads_alive()


def test_nothing_to_do():
    assert list(ahead(square, [], 2, 3)) == []


@pytest.mark.parametrize(("threads", "most", "expected"), [(1, 0, 1), (3, 1, 3), (2, 5, 5)])
def test_so_far_ahead_and_no_further(threads, most, expected):
    """While the caller holds the first result, `expected` others are computed, and no more items are taken."""
    done, taken = [], []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = ahead(done.append, items(), threads, most)
    assert not taken, "nothing begins before the first result is asked for"
    next(results)
    wait_until(lambda: len(done) == 1 + expected)
    time.sleep(0.05)
    assert len(done) == len(taken) == 1 + expected
    results.close()


def test_an_error_comes_in_its_turn():
    def odd(number):
        if number == 2:
            raise ZeroDivisionError("two")
        return number

    results = ahead(odd, range(9), 3, 5)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError, match="two"):
        next(results)
    assert not threads_alive()


@pytest.mark.parametrize("leave", ["close", "drop"])
def test_leaving_waits_for_what_is_under_way_and_begins_no_more(leave):
    begun, finished = [], []

    def slow(number):
        begun.append(number)
        time.sleep(0.05 * (number > 0))
        finished.append(number)

    results = ahead(slow, range(1000), 2, 50)
    next(results)
    wait_until(lambda: len(begun) >= 2)
    if leave == "close":
        results.close()
    else:
        del results
    assert not threads_alive()
    assert sorted(begun) == sorted(finished)
    assert len(begun) < 40
