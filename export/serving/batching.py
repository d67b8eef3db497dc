"""Texts of different requests share a batch: a bounded queue, and threads that empty it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from export import edge
from export.serving.limits import Limits, RefusedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Encoded = npt.NDArray[np.int64]

#: Starting the model costs about as much as so many tokens: three to four were measured on three
#: layers of MiniLM in int8 on a processor without VNNI, and with it each token costs less.
_START = 6
#: How fast a crowd that has left is forgotten, a batch.
_DECAY = 0.95


class Observer(Protocol):
    """Who is told about every batch."""

    def batch(self, texts: int, waited: float, seconds: float) -> None:
        """Hear of a batch: its size, how long its oldest text waited, how long it took."""


class Job:
    """The texts of one request, which may be answered in several batches."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.found: list[edge.Prediction | None] = [None] * len(texts)
        self.left = len(texts)
        self.since = time.monotonic()
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[edge.Prediction]] = self.loop.create_future()

    def put(self, place: int, answer: edge.Prediction | Exception) -> None:
        """Note one answer; the last one ends the job. Only in the loop's own thread."""
        if self.future.done():  # timed out, or failed in another batch
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
            return
        self.found[place] = answer
        self.left -= 1
        if not self.left:
            self.future.set_result([each for each in self.found if each is not None])

    def end_late(self) -> None:
        """Refuse what has taken too long."""
        if not self.future.done():
            late = RefusedError(503, "There was no answer in time: ask later.", retry_after="1")
            self.future.set_exception(late)


Item = tuple[Job, int]  # a job and the place of one of its texts


class Batcher:
    """A model behind a queue.

    A free worker takes what waits. It holds back for `Limits.max_wait_ms` at most, and only while
    fewer texts wait than were lately under way together: somebody alone is answered at once, and of
    a crowd of clients those who have just been answered get into the next batch.

    Args:
        model: What answers; its `encode`, `score` and `decide` may run in several threads.
        limits: ``max_batch``, ``max_wait_ms``, ``max_queue`` and ``answer_seconds`` are read.
        workers: Batches at once.
        observer: Is told about each batch.
    """

    def __init__(
        self, model: edge.Model, limits: Limits, workers: int, observer: Observer | None = None
    ) -> None:
        self._model, self._limits, self._workers = model, limits, workers
        self._observer = observer
        self._queue: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._under_way = 0  # texts that wait or are in the model
        self._crowd = 1.0  # how many were lately under way
        self._threads = [
            threading.Thread(target=self._work, name=f"batch-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Return how many texts wait."""
        return len(self._queue)

    async def answer(self, texts: Sequence[str]) -> list[edge.Prediction]:
        """Answer the texts of one request, in their order.

        Everything up to the queue happens before the first await: who has got a batcher that was
        open is in its queue, and is answered even if it is closed then.

        Raises:
            RefusedError: The queue is full, or it took too long (503).
            BundleError: The model gave no usable scores.
        """
        job = Job(texts)
        with self._changed:
            if self._closed:
                raise RefusedError(503, "The model is being unloaded: ask again.", retry_after="1")
            if len(self._queue) + len(texts) > self._limits.max_queue:
                raise RefusedError(
                    503, f"{len(self._queue)} texts wait already: ask later.", retry_after="1"
                )
            empty = not self._queue
            self._queue.extend((job, place) for place in range(len(texts)))
            self._under_way += len(texts)
            self._crowd = max(self._crowd, self._under_way)
            # A worker has to look at the clock for the first one, and to go when there are enough.
            if empty or len(self._queue) >= self._enough():
                self._changed.notify()
        # A third of what asyncio.timeout costs.
        late = job.loop.call_later(self._limits.answer_seconds, job.end_late)
        try:
            return await job.future
        finally:
            late.cancel()

    def close(self) -> None:
        """Take no more; what waits is still answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def drained(self) -> None:
        """Wait until all that was taken is answered."""
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _enough(self) -> float:
        return min(self._limits.max_batch, -(-self._crowd // self._workers))

    def _take(self) -> list[Item]:
        """Wait for a batch; none if it is closed and everything is answered."""
        with self._changed:
            while True:
                while self._queue and self._queue[0][0].future.done():
                    self._queue.popleft()  # nobody waits for it any more
                    self._under_way -= 1
                if self._closed or len(self._queue) >= self._enough():
                    break
                left = None
                if self._queue:
                    late = self._queue[0][0].since + self._limits.max_wait_ms / 1000
                    left = late - time.monotonic()
                    if left <= 0:
                        break
                self._changed.wait(left)
            self._crowd = max(1.0, self._under_way, self._crowd * _DECAY)
            count = min(len(self._queue), self._limits.max_batch)
            items = [self._queue.popleft() for _ in range(count)]
            if self._queue:
                self._changed.notify()
            return items

    def _work(self) -> None:
        while items := self._take():
            since = min(job.since for job, _ in items)
            start = time.monotonic()
            try:
                for some, answers in self._answers(items):
                    self._deliver(some, answers)
            except Exception as error:  # of any kind: who waits has to hear of it
                self._deliver(items, [error] * len(items))
            with self._changed:
                self._under_way -= len(items)
            if self._observer:
                self._observer.batch(len(items), start - since, time.monotonic() - start)

    def _answers(
        self, items: Sequence[Item]
    ) -> Iterator[tuple[list[Item], Sequence[edge.Prediction]]]:
        encoded = [self._model.encode(job.texts[place]) for job, place in items]
        for rows in alike([each.shape[1] for each in encoded]):
            scores = self._model.score([encoded[row] for row in rows])
            yield [items[row] for row in rows], self._model.decide(scores)

    def _deliver(
        self, items: Sequence[Item], answers: Sequence[edge.Prediction | Exception]
    ) -> None:
        pairs = list(zip(items, answers, strict=True))

        def put() -> None:
            for (job, place), answer in pairs:
                job.put(place, answer)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            items[0][0].loop.call_soon_threadsafe(put)


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Group rows by length, so that the model computes least, padding and starts counted.

    The groups are the cheapest of all that are stretches of the sorted rows (found length by
    length: the cheapest end of a row of lengths is the cheapest end of what is left).

    Args:
        lengths: Of each row, in tokens.

    Returns:
        Places in ``lengths``; every place once.
    """
    rows: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rows.setdefault(length, []).append(row)
    steps = sorted(rows)
    best: list[tuple[int, int]] = [(0, 0)]  # for so many steps: their cost, where the last begins
    for end in range(1, len(steps) + 1):
        count, found = 0, []
        for begin in range(end - 1, -1, -1):
            count += len(rows[steps[begin]])
            found.append((best[begin][0] + _START + count * steps[end - 1], begin))
        best.append(min(found))
    groups, end = [], len(steps)
    while end:
        begin = best[end][1]
        groups.append([row for length in steps[begin:end] for row in rows[length]])
        end = begin
    return groups
