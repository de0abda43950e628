"""Reading ahead: background threads compute what comes next while the caller works on what has come.

The threads run Pillow and NumPy, never a compiled kernel: those belong to the caller's step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int,
          most: int) -> Generator[tuple[Item, Result]]:
    """Yield (item, function(item)) in the order of `items`; `threads` threads compute `most` of them ahead, or one each
    where `most` is less.

    `items` is taken from as needed. What `function` raises is raised when its item's turn comes. Closing or dropping
    the iterator waits for the calls under way and makes no others."""
    waiting = iter(items)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")

    def submit(count: int) -> None:
        for item in islice(waiting, count):
            pending.append((item, pool.submit(function, item)))

    try:
        submit(max(most, threads))
        while pending:
            item, future = pending.popleft()
            result = future.result()
            submit(1)
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
