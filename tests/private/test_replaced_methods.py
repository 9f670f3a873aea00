"""Methods replaced on instances: for all threads, and restored after the last one."""

import threading

import pytest

from keras_distill._backend.replaced_methods import replaced


class Counter:
    def __init__(self, start):
        self.start = start

    def count(self, step):
        return self.start + step


def doubled(method, counter):
    return lambda step: 2 * method(step)


def negated(method, counter):
    return lambda step: -counter.start - step


def test_a_method_is_replaced_on_the_given_objects_alone():
    first, second, other = Counter(1), Counter(2), Counter(3)
    with replaced([first, second, first], "count", doubled):
        assert [x.count(1) for x in (first, second, other)] == [4, 6, 4]
    assert [x.count(1) for x in (first, second)] == [2, 3]
    assert not any("count" in vars(x) for x in (first, second, other))


def test_an_error_restores_the_method():
    counter = Counter(1)
    with pytest.raises(KeyError), replaced([counter], "count", doubled):
        raise KeyError
    assert counter.count(1) == 2 and "count" not in vars(counter)


def test_a_method_of_the_instance_is_restored():
    counter = Counter(1)
    counter.count = original = lambda step: 7
    with replaced([counter], "count", doubled):
        assert counter.count(1) == 14
    assert counter.count is original


def test_nested_replacements_of_different_kinds():
    counter = Counter(1)
    with replaced([counter], "count", negated):
        with replaced([counter], "count", doubled):
            assert counter.count(1) == -4
        assert counter.count(1) == -2
    assert counter.count(1) == 2


def test_threads_that_overlap_replace_once_and_the_last_restores():
    """One enters first and leaves first; the other still has the replacement."""
    counter, found = Counter(1), {}
    both, left = threading.Barrier(2), threading.Event()

    def run(name):
        with replaced([counter], "count", doubled):
            both.wait(timeout=10)
            if name == "last":
                left.wait(timeout=10)
            found[name] = counter.count(1)
        if name == "first":
            left.set()

    threads = [threading.Thread(target=run, args=(x,)) for x in ("first", "last")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert found == {"first": 4, "last": 4}
    assert counter.count(1) == 2 and "count" not in vars(counter)
