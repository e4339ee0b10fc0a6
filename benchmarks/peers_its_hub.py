"""its-hub's side of `peers.py`. It runs in its own environment and imports nothing of ours.

Reads tasks from standard input, one JSON object a line. Answers each with a line: seconds, and the responses' texts.
"""

import asyncio
import json
import logging
import sys
import time
import warnings
from typing import Any

import aiohttp
from its_hub import (
    AbstractOutcomeRewardModel,
    AbstractProcessRewardModel,
    BestOfN,
    OpenAICompatibleLanguageModel,
    StepGeneration,
)
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering


async def scores(url: str, question: str, responses: list[str]) -> list[float]:
    """All responses in one request."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"texts": [question + response.strip() for response in responses]}) as reply,
    ):
        return list((await reply.json())["scores"])


class ServedPRM(AbstractProcessRewardModel):
    """Scores partial responses, as `LocalVllmProcessRewardModel` does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def score(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return asyncio.run(self.ascore(prompt_or_messages, steps))

    async def ascore(self, prompt_or_messages: Any, steps: list[str]) -> list[float]:
        return await scores(self.url, prompt_or_messages, steps)


class ServedORM(AbstractOutcomeRewardModel):
    """Scores whole conversations."""

    def __init__(self, url: str) -> None:
        self.url = url

    def score(self, messages: Any, **kwargs: Any) -> list[float]:
        return asyncio.run(self.ascore(messages, **kwargs))

    async def ascore(self, messages: Any, orchestrator: Any = None, **kwargs: Any) -> list[float]:
        question = messages[0][0].content
        return await scores(self.url, question, [conversation[-1].content for conversation in messages])


def algorithm(task: dict[str, Any]) -> tuple[Any, OpenAICompatibleLanguageModel]:
    step, steps = task["step_tokens"], task["steps"]
    lm = OpenAICompatibleLanguageModel(
        endpoint=task["endpoint"],
        api_key="none",
        model_name=task["model"],
        temperature=task["temperature"],
        # of one request: a step, or a whole response
        max_completion_tokens=step if task["algorithm"] != "best-of-n" else task["max_tokens"],
    )
    if task["algorithm"] == "best-of-n":
        return BestOfN(ServedORM(task["scorer"])), lm
    stepwise = StepGeneration(
        max_steps=steps - 1,  # it makes one step more
        step_token=task["delimiter"],
        tokens_per_step=None if task["delimiter"] else step,
        stop_token=r"\boxed",
        temperature=task["temperature"],
    )
    prm = ServedPRM(task["scorer"])
    if task["algorithm"] == "beam":
        return BeamSearch(stepwise, prm, beam_width=task["n"] // task["width"]), lm
    return ParticleFiltering(stepwise, prm), lm


def solve(task: dict[str, Any]) -> dict[str, Any]:
    search, lm = algorithm(task)
    questions, n = task["questions"], task["n"]

    async def gathered() -> list[Any]:
        async with lm:
            return await asyncio.gather(*(search.ainfer(lm, question, n) for question in questions))

    start = time.perf_counter()
    if task["gathered"]:
        responses = asyncio.run(gathered())
    else:
        responses = [search.infer(lm, question, n) for question in questions]
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "texts": [response["content"] or "" for response in responses]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for line in sys.stdin:
        print(json.dumps(solve(json.loads(line))), flush=True)
