"""Work beside the network's: the next rows are read and tokenised, the last ones written, while it computes."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items in the same order, drawn in another thread up to `depth` ahead of who uses them.

    An exception there is raised here, in its place. The thread ends when this iterator is closed.
    """
    waiting: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: Any, error: BaseException | None = None) -> None:
        while not closed.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def draw() -> None:
        try:
            for item in items:
                put(item)
                if closed.is_set():
                    return
            put(_END)
        except BaseException as error:  # it is raised where the items are used
            put(_END, error)

    thread = threading.Thread(target=draw, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        closed.set()
        thread.join()


class Behind:
    """Runs what it is given one after the other in another thread, up to `depth` behind who gives it.

    As a context manager it waits for the rest. An exception in one piece of work is raised at a later `run`, or at
    the end; no work that follows it is done.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, "behind")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False

    def run(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work(*arguments)` done; wait while too much is waiting."""
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._do, work, arguments))

    def _do(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            work(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for future in self._waiting:
                future.result()
