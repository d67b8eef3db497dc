"""The queue in front of a model: who waits how long, and what comes of those who are too many."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from export import edge
from export.serving.batching import _START, Batcher, alike
from export.serving.limits import Limits, RefusedError


class Model:
    """Answers a text with itself, as soon as it may, and remembers its batches."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.started = threading.Event()
        if not held:
            self.go.set()

    def encode(self, text: str) -> Any:
        return np.array([[ord(letter) for letter in text]])

    def score(self, encoded: Sequence[Any]) -> Any:
        self.batches.append(len(encoded))
        self.started.set()
        self.go.wait(10)
        if any(each[0][0] == ord("!") for each in encoded):
            raise edge.BundleError("NaN")
        return encoded

    def decide(self, scored: Any) -> list[edge.Prediction]:
        return [edge.Prediction("".join(map(chr, each[0])), {}) for each in scored]


def batcher(model: Model, workers: int = 1, **limits: Any) -> Batcher:
    usual: dict[str, Any] = {"max_wait_ms": 0.0}
    return Batcher(cast(edge.Model, model), Limits(**usual | limits), workers)


def labels(found: Sequence[edge.Prediction]) -> list[str | None]:
    return [each.label for each in found]


def test_each_request_gets_its_answers_in_its_order() -> None:
    async def ask() -> None:
        queue = batcher(Model(), workers=3, max_batch=4)
        chance = random.Random(0)
        texts = [
            ["x" * chance.randint(1, 60) + str(n) for n in range(chance.randint(1, 9))]
            for _ in range(80)
        ]
        found = await asyncio.gather(*map(queue.answer, texts))
        assert [labels(each) for each in found] == texts
        queue.close()
        await queue.drained()

    asyncio.run(ask())


def test_somebody_alone_does_not_wait_for_others() -> None:
    async def ask() -> None:
        queue = batcher(Model(), workers=2, max_wait_ms=5000.0)
        start = time.monotonic()
        for _ in range(3):
            await queue.answer(["alone"])
        assert time.monotonic() - start < 2
        queue.close()

    asyncio.run(ask())


def test_a_crowd_that_is_back_shares_a_batch_and_nobody_waits_beyond_the_budget() -> None:
    async def ask() -> None:
        model = Model()
        queue = batcher(model, max_wait_ms=500.0)
        await asyncio.gather(*(queue.answer(["who"]) for _ in range(8)))
        model.batches.clear()
        first = asyncio.create_task(queue.answer(["who"]))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, *(queue.answer(["who"]) for _ in range(7)))
        assert model.batches == [8]  # the first one has waited for the seven
        start = time.monotonic()
        await queue.answer(["who"])  # the seven are gone
        assert 0.3 < time.monotonic() - start < 3
        queue.close()

    asyncio.run(ask())


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    async def ask() -> None:
        model = Model(held=True)
        queue = batcher(model, max_queue=4, max_texts=4, max_batch=1)
        first = asyncio.create_task(queue.answer(["in the model"]))
        await asyncio.to_thread(model.started.wait, 10)
        others = [asyncio.create_task(queue.answer([str(n)])) for n in range(4)]
        await asyncio.sleep(0)
        assert queue.waiting == 4
        with pytest.raises(RefusedError, match="4 texts wait") as caught:
            await queue.answer(["one too many"])
        assert caught.value.status == 503
        assert caught.value.headers == {"retry-after": "1"}
        model.go.set()
        assert labels((await asyncio.gather(first, *others))[4]) == ["3"]
        assert labels(await queue.answer(["again"])) == ["again"]
        queue.close()

    asyncio.run(ask())


def test_who_has_gone_is_not_computed() -> None:
    async def ask() -> None:
        model = Model(held=True)
        queue = batcher(model, max_batch=1)
        first = asyncio.create_task(queue.answer(["first"]))
        await asyncio.to_thread(model.started.wait, 10)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await queue.answer(["gone"] * 20)
        model.go.set()
        await first
        assert labels(await queue.answer(["next"])) == ["next"]
        assert len(model.batches) == 2
        queue.close()

    asyncio.run(ask())


def test_who_waits_too_long_is_refused_and_the_model_goes_on() -> None:
    async def ask() -> None:
        model = Model(held=True)
        queue = batcher(model, max_batch=1, answer_seconds=0.2)
        tasks = [asyncio.create_task(queue.answer([str(n)] * 2)) for n in range(3)]
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, RefusedError)
            assert (found.status, found.headers) == (503, {"retry-after": "1"})
            assert "no answer in time" in found.message
        model.go.set()
        assert labels(await queue.answer(["next"])) == ["next"]
        assert queue.waiting == 0
        assert len(model.batches) == 2  # of those who were late one text, which was in the model
        queue.close()

    asyncio.run(ask())


def test_a_failure_is_told_to_those_in_the_batch_and_the_model_goes_on() -> None:
    async def ask() -> None:
        queue = batcher(Model())
        with pytest.raises(edge.BundleError, match="NaN"):
            await queue.answer(["!"])
        assert labels(await queue.answer(["fine"])) == ["fine"]
        queue.close()

    asyncio.run(ask())


def test_what_was_taken_is_answered_after_the_close() -> None:
    async def ask() -> None:
        model = Model(held=True)
        queue = batcher(model, max_batch=2, max_wait_ms=5000.0)
        tasks = [asyncio.create_task(queue.answer([str(n)])) for n in range(9)]
        await asyncio.to_thread(model.started.wait, 10)
        queue.close()
        with pytest.raises(RefusedError, match="unloaded"):
            await queue.answer(["late"])
        model.go.set()
        await queue.drained()
        assert [labels(each) for each in await asyncio.gather(*tasks)] == [
            [str(n)] for n in range(9)
        ]

    asyncio.run(ask())


def cost(groups: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return sum(_START + len(rows) * max(lengths[row] for row in rows) for rows in groups)


def test_texts_are_grouped_at_the_least_cost() -> None:
    chance = random.Random(0)
    for _ in range(200):
        lengths = [chance.randint(1, 30) for _ in range(chance.randint(1, 7))]
        groups = alike(lengths)
        assert sorted(row for rows in groups for row in rows) == list(range(len(lengths)))
        order = sorted(range(len(lengths)), key=lambda row: lengths[row])
        cuts = itertools.product([False, True], repeat=len(lengths) - 1)
        assert cost(groups, lengths) == min(cost(split(order, cut), lengths) for cut in cuts)


def split(order: Sequence[int], cut: Sequence[bool]) -> list[list[int]]:
    """Cut a row of rows wherever it says so."""
    groups = [[order[0]]]
    for row, here in zip(order[1:], cut, strict=True):
        if here:
            groups.append([row])
        else:
            groups[-1].append(row)
    return groups
