"""The runner of many problems."""

import asyncio
import gc
from typing import Any

import pytest

from infer.core.generator import Completion, Request
from infer.core.problem import Problem
from infer.core.solve import solve
from infer.strategies import find
from infer.testing.toy import ToyGenerator, setting


class Dying(ToyGenerator):
    """Fails all its requests at once, as a dead engine does, when there are eight of them."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[list[Completion]]] = []

    async def generate(self, request: Request) -> list[Completion]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        if len(self.waiting) == 8:
            for waiting in self.waiting:
                waiting.set_exception(RuntimeError("the engine died"))
        return await self.waiting[-1]


async def test_an_engine_that_dies_under_many_problems_is_one_error() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    problems = [Problem(f"p{i}", "7") for i in range(8)]
    greedy = find("greedy")
    with pytest.raises(RuntimeError, match="the engine died"):
        await solve(
            problems,
            lambda problem: [{"role": "user", "content": problem.prompt}],
            setting(generator=Dying()),
            greedy,
            greedy.configure(()),
            print,
        )
    gc.collect()
    assert said == []
