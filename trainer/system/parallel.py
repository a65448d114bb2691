"""Work of several threads on a stream of items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = 2


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the result of the function for each item, in order, while threads work on the next items."""
    results: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for item in items:
            results.append(pool.submit(function, item))
            if len(results) > _THREADS:
                yield results.popleft().result()
        while results:
            yield results.popleft().result()
