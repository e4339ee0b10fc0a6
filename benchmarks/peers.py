"""Wall time against its-hub 1.2.0: the same model behind the same vLLM server, the same problems, the same n.

    python -m venv /tmp/its && /tmp/its/bin/pip install "its-hub[lm]==1.2.0"
    python benchmarks/peers.py nano-s --peer /tmp/its/bin/python
    python benchmarks/peers.py DIR --step-tokens 40 --steps 8 --algorithms beam --repeats 1 --peer /tmp/its/bin/python

(its-hub's `experimental` extra, a reward model on vLLM, is not needed for beam search and particle filtering. Here a
small server scores by a hash of the text for both sides, so that the reward model's speed does not matter.)

Best-of-N, beam search and particle filtering run in turns, four ways:

- loop: its-hub as in its documentation, `infer` on one problem after the other;
- gathered: its-hub's own `ainfer` for all problems at once;
- served: ours on the same server (`OpenAIGenerator`, which `--backend openai` opens);
- in process: ours with vLLM in this process.

Equal for all: prompts, temperature, no top-p, top-k or min-p, n, tokens and delimiter of a step, steps, tokens of a
solution, beams kept, resampling at each step by the odds of the score, and the best score wins. The server and the
engine in this process have the same options and equally many threads. Caches are emptied before each turn. The
differences:

- its-hub sends chat messages and renders the text so far again at each step. Ours sends the sampled tokens.
- its-hub ends a solution at `\\boxed` or at the last step and ignores the model's end token. So it continues a solution
  that ended without an answer. Ours ends where the model does.
- its-hub's first level of beam search has as many samples as beams, not n, and finished beams keep their places. Ours
  gives the n samples to the remaining beams, so it generates more in beam search.
- its-hub scores all candidates of a problem in one request. Ours scores all that wait, of any problem, in one request.
- Ours sends seeds; its-hub sends none.
- its-hub's best-of-N has at most 32 requests in flight, its default. Its other algorithms set no limit. Ours has 256.

Prints wall times (median and range over the rounds), generated tokens (by the server's own count) and tokens/s. Prints
accuracy with Wilson's 95% interval; since a hash chooses, it is the accuracy of one sample. Then prints the ratios of
ours to theirs, each within its round.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from infer.core.generator import Generator, Sampling
from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.search import Setting
from infer.core.solution import Solution
from infer.core.solve import Failure, solve
from infer.core.tally import wilson
from infer.core.tree import Aggregation
from infer.core.verifier import Scores
from infer.cost.model import ModelSpec
from infer.evalsets.base import MATHEMATICS, PLAIN
from infer.evalsets.graders.extraction import extract
from infer.evalsets.graders.mathematics import Mathematics
from infer.evalsets.nano import load
from infer.generate.address import Address
from infer.generate.backends import REQUESTS
from infer.generate.engine import start_engine
from infer.generate.http import Http, Reply
from infer.generate.openai import OpenAIGenerator
from infer.generate.vllm import VLLMGenerator
from infer.runs.models import NANO, ModelRef
from infer.strategies import find
from infer.testing.toy import ToyGrader
from tests.servers import Server, vllm_server

WORKER = Path(__file__).with_name("peers_its_hub.py")
NO_DELIMITER = "\x00"


async def score(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that scores each text of a request by its hash."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    texts = json.loads(body)["texts"]
    scores = [(hashlib.blake2b(text.encode()).digest()[0] + 0.5) / 256 for text in texts]
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"scores": scores}).encode()})


def serve_scores(listening: socket.socket) -> None:
    import uvicorn

    uvicorn.Server(uvicorn.Config(score, log_level="error", lifespan="off")).run([listening])


@contextmanager
def scorer() -> Iterator[str]:
    """The URL of a scorer in a separate process."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        process = multiprocessing.get_context("fork").Process(target=serve_scores, args=(listening,), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/score"
        finally:
            process.terminate()
            process.join()


class Scored(Reply):
    scores: list[float]


class ServedScores:
    """Our client of the scorer. It collects texts while a request is under way and sends them in the next one."""

    aggregation: Aggregation = "last"
    stepwise = True
    spec: ModelSpec | None = None

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = Http(Address.parse(url), None, concurrency=1, timeout=60.0, retries=2, backoff=0.1)
        self._asked: list[tuple[str, asyncio.Future[float]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def most(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> list[Call]:
        return []

    async def score(self, problem: Problem, steps: Sequence[str], known: int, finished: bool) -> Scores:
        loop = asyncio.get_running_loop()
        asked = [
            (problem.prompt + "".join(steps[: i + 1]).strip(), loop.create_future()) for i in range(known, len(steps))
        ]
        self._asked += asked
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return Scores([await score for _, score in asked], [])

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            try:
                reply = await self._http.post(self._url, {"texts": [text for text, _ in asked]}, Scored)
            except Exception as error:
                for _, score in asked:
                    score.set_exception(error)
                raise
            for (_, score), value in zip(asked, reply.scores, strict=True):
                score.set_result(value)

    def describe(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        await self._http.close()


@dataclass(frozen=True, slots=True)
class Turn:
    """One way through all problems."""

    seconds: float
    tokens: int
    answers: list[str | None]


class Ours:
    """Our search on either generator."""

    def __init__(self, args: argparse.Namespace, problems: list[Problem], template: Any, scores_at: str) -> None:
        self._args, self._problems, self._template, self._scores_at = args, problems, template, scores_at

    async def run(self, algorithm: str, opened: Generator) -> Turn:
        """Solves all problems at once and closes nothing."""
        args = self._args
        verifier = ServedScores(self._scores_at)
        setting = Setting(
            generator=opened,
            verifier=verifier,
            grader=ToyGrader(extract),
            sampling=Sampling(temperature=args.temperature, max_tokens=args.max_tokens),
            delimiter=NO_DELIMITER if args.fixed else "\n\n",
            step_tokens=args.step_tokens,
        )
        options = {
            "best-of-n": [f"n={args.n}", "choose=prm"],
            "beam": [f"n={args.n}", f"width={args.width}", f"iterations={args.steps}", "choose=prm"],
            "particle-filter": [f"n={args.n}", "mode=paper", "choose=prm"],
        }
        solutions: dict[str, Solution] = {}

        def record(outcome: Solution | Failure) -> None:
            if isinstance(outcome, Failure):
                raise SystemExit(f"{algorithm}: {outcome.error}")
            solutions[outcome.problem_id] = outcome

        strategy = find(algorithm)
        start = time.perf_counter()
        await solve(
            self._problems,
            self._template.messages,
            setting,
            strategy,
            strategy.configure(options[algorithm]),
            record,
            concurrency=len(self._problems),
        )
        seconds = time.perf_counter() - start
        await verifier.close()
        tokens = sum(solution.usage.generated for solution in solutions.values())
        return Turn(seconds, tokens, [solutions[problem.id].answer for problem in self._problems])


def on_server(server: Server, call: Callable[[], Turn]) -> Turn:
    """A turn on the server, after its cache was emptied. The server itself counts the tokens."""
    httpx.post(f"{server.url.removesuffix('/v1')}/reset_prefix_cache").raise_for_status()
    before = server.metric("vllm:generation_tokens_total")
    turn = call()
    return Turn(turn.seconds, server.metric("vllm:generation_tokens_total") - before, turn.answers)


async def right(problems: list[Problem], turns: list[Turn]) -> int:
    """The number of right answers in all turns."""
    async with Mathematics() as checker:
        verdicts = [
            (await checker.equal(problem.answer or "", answer)).right
            for turn in turns
            for problem, answer in zip(problems, turn.answers, strict=True)
            if answer is not None
        ]
    return sum(verdicts)


def report(algorithm: str, problems: list[Problem], turns: dict[str, list[Turn]]) -> list[dict[str, Any]]:
    results = []
    for way, its in turns.items():
        seconds = [turn.seconds for turn in its]
        tokens = statistics.fmean(turn.tokens for turn in its)
        correct, total = asyncio.run(right(problems, its)), len(its) * len(problems)
        low, high = wilson(correct, total)
        row: dict[str, Any] = {
            "algorithm": algorithm,
            "way": way,
            "seconds": statistics.median(seconds),
            "seconds_range": [min(seconds), max(seconds)],
            "tokens": tokens,
            "accuracy": correct / total,
            "accuracy_interval_95": [low, high],
        }
        text = ""
        if way in ("served", "in process"):
            for peer in ("loop", "gathered"):
                ratios = [a.seconds / b.seconds for a, b in zip(its, turns[peer], strict=True)]
                row[f"ratio_to_{peer}"] = [statistics.median(ratios), min(ratios), max(ratios)]
                text += f"   {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of {peer}"
        print(
            f"{algorithm:<16} {way:<11} {statistics.median(seconds):7.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
            f"   {tokens:>9,.0f} tokens   {tokens / statistics.median(seconds):>7,.0f} tok/s   "
            f"accuracy {correct / total:.3f} ({low:.3f} to {high:.3f}){text}",
            flush=True,
        )
        results.append(row)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer", required=True, help="the Python of the environment that its-hub is installed in")
    algorithms = ("best-of-n", "beam", "particle-filter")
    parser.add_argument("--algorithms", nargs="+", choices=algorithms, default=algorithms)
    parser.add_argument("--problems", type=int, default=32)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--width", type=int, default=2, help="next steps of a beam: n / width beams are kept")
    parser.add_argument("--steps", type=int, default=16, help="of a solution")
    parser.add_argument("--step-tokens", type=int, help="length of every step; default: at most 64, to a blank line")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; each runs every way once")
    parser.add_argument("--threads", type=int, default=1, help="of the server's model, and of the one in this process")
    args = parser.parse_args()
    args.fixed = args.step_tokens is not None
    args.step_tokens = args.step_tokens or NANO.step_tokens
    args.max_tokens = args.steps * args.step_tokens if args.fixed else NANO.max_tokens

    os.environ |= {
        "VLLM_SERVER_DEV_MODE": "1",  # lets the cache be emptied
        "OMP_NUM_THREADS": str(args.threads),
        "HF_HUB_OFFLINE": "1",
    }
    model = ModelRef.named(args.model)
    where = Path(model.where)
    template = PLAIN if model.packaged else MATHEMATICS
    problems = list(islice(load(size=10_000), args.problems))
    # whole prompts, as in process (chunks and seeds do not go together on a CPU), and no defaults of the checkpoint's
    options = ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192", "--max-num-seqs", "256"]
    options += ["--generation-config", "vllm"]
    log = Path(tempfile.mkstemp(prefix="peers-", suffix=".log")[1])
    peer = subprocess.Popen([args.peer, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    results = []
    try:
        with scorer() as scores_at, vllm_server(where, log, *options) as server:
            engine: Any = start_engine(where, "generate", dtype="float32", memory_fraction=0.5, in_process=True)
            ours = Ours(args, problems, template, scores_at)

            def its_hub(algorithm: str, gathered: bool) -> Turn:
                task = {
                    "algorithm": algorithm,
                    "gathered": gathered,
                    "endpoint": server.url,
                    "model": server.model,
                    "scorer": scores_at,
                    "questions": [template.messages(problem)[-1]["content"] for problem in problems],
                    "delimiter": None if args.fixed else "\n\n",
                    **{key: getattr(args, key) for key in ("n", "width", "steps", "step_tokens", "temperature")},
                    "max_tokens": args.max_tokens,
                }
                assert peer.stdin is not None
                assert peer.stdout is not None
                peer.stdin.write(json.dumps(task) + "\n")
                peer.stdin.flush()
                line = peer.stdout.readline()
                if not line:
                    raise SystemExit("its-hub failed: see above")
                reply = json.loads(line)
                return Turn(reply["seconds"], 0, [extract(text) for text in reply["texts"]])

            async def served(algorithm: str) -> Turn:
                generator = await OpenAIGenerator.connect(server.url, concurrency=REQUESTS)
                try:
                    return await ours.run(algorithm, generator)
                finally:
                    await generator.close()

            def in_process(algorithm: str) -> Turn:
                engine._engine.reset_prefix_cache()
                return asyncio.run(ours.run(algorithm, VLLMGenerator(engine)))

            ways: dict[str, Callable[[str], Turn]] = {
                "loop": lambda name: on_server(server, lambda: its_hub(name, False)),
                "gathered": lambda name: on_server(server, lambda: its_hub(name, True)),
                "served": lambda name: on_server(server, lambda: asyncio.run(served(name))),
                "in process": in_process,
            }
            for way in ("gathered", "served", "in process"):
                ways[way]("best-of-n")  # warms up
            for algorithm in args.algorithms:
                turns: dict[str, list[Turn]] = {way: [] for way in ways}
                for _ in range(args.repeats):
                    for way, call in ways.items():
                        turns[way].append(call(algorithm))
                results += report(algorithm, problems, turns)
    finally:
        peer.kill()
        peer.wait()
    print(json.dumps(vars(args) | {"results": results}))


if __name__ == "__main__":
    main()
