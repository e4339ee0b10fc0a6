"""Reward models that vLLM's own server serves give the same scores as in process."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infer.core.problem import Problem
from infer.errors import TooLong, UserError
from infer.nano import checkpoint
from tests.engines import open_verifier
from tests.servers import Server, vllm_server

pytestmark = pytest.mark.models

POOLING = ("--runner", "pooling")
STEPS = ["12+30=42\n\n", "42*2=84\n\n", "84-14=70\n\n", "Answer: \\boxed{70}"]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.verifiers.checkpoints import qwen_prm

    return qwen_prm(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def servers(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Server, str]]]:
    """Two servers: a classifier, and Qwen's reward model in vLLM's own implementation, which scores each step tag."""
    pytest.importorskip("vllm")
    from tests.verifiers.checkpoints import qwen_tokenizer

    tag = qwen_tokenizer().convert_tokens_to_ids("<extra_0>")  # vLLM assumes 151651
    options = {"nano": (), "qwen": ("--pooler-config", json.dumps({"step_tag_id": tag}))}
    log = tmp_path_factory.mktemp("servers")
    models = {"nano": checkpoint("nano-prm-s"), "qwen": qwen}
    with ExitStack() as stack:
        yield {
            name: (stack.enter_context(vllm_server(model, log / name, *POOLING, *options[name])), str(model))
            for name, model in models.items()
        }


@pytest.mark.parametrize("name", ["nano", "qwen"])
async def test_served_is_in_process(servers: dict[str, tuple[Server, str]], name: str) -> None:
    server, model = servers[name]
    served = await open_verifier(server.url, "transformers")
    local = await open_verifier(model, "transformers", dtype="float32")
    assert served.aggregation == local.aggregation
    for url in (server.url, server.url.removesuffix("/v1")):
        assert (await open_verifier(url, "transformers")).describe() == served.describe()
    for known, finished in [(0, True), (0, False), (3, True)]:
        expected = await local.score(Problem("p", "(12+30)*2-14=?"), STEPS, known, finished)
        scores = await served.score(Problem("p", "(12+30)*2-14=?"), STEPS, known, finished)
        assert scores.values == pytest.approx(expected.values, abs=1e-4)
    with pytest.raises(TooLong, match="longer than the reward model's context"):
        await served.score(Problem("p", "(12+30)*2-14=?"), ["1+1=2\n\n" * 2000], 0, False)


async def test_the_ledger_is_an_upper_bound_of_the_servers_own(servers: dict[str, tuple[Server, str]]) -> None:
    """All prompt tokens are charged as computed, since the server does not report cached tokens."""
    server, _ = servers["nano"]
    served = await open_verifier(server.url, "transformers")
    before = server.metric("vllm:prompt_tokens_total")
    scores = await served.score(Problem("p", "77+88=?"), STEPS, 0, True)
    assert server.metric("vllm:prompt_tokens_total") - before == scores.prefill
    assert scores.cached == 0


async def test_a_language_model_that_answers_with_a_token(nano_server: Server) -> None:
    """nano-s was never trained to judge, but it has both tokens, so a probability for each."""
    served = await open_verifier(f"rlhflow-prm:{nano_server.url}", "transformers")
    local = await open_verifier("rlhflow-prm:nano-s", "transformers", dtype="float32")
    for known in (0, 2, 3):
        expected = await local.score(Problem("p", "(12+30)*2-14=?"), STEPS, known, True)
        before = nano_server.metric("vllm:prompt_tokens_total"), nano_server.metric("vllm:generation_tokens_total")
        scores = await served.score(Problem("p", "(12+30)*2-14=?"), STEPS, known, True)
        after = nano_server.metric("vllm:prompt_tokens_total"), nano_server.metric("vllm:generation_tokens_total")
        assert scores.values == pytest.approx(expected.values, abs=1e-4)
        assert (after[0] - before[0], after[1] - before[1]) == (scores.prefill + scores.cached, scores.generated)
    assert scores.cached >= 32, "the steps before were computed already"


async def test_a_server_with_another_model_is_refused(nano_server: Server) -> None:
    with pytest.raises(UserError, match=r"no reward model is served .* --runner pooling"):
        await open_verifier(f"qwen-prm:{nano_server.url}", "transformers")
    with pytest.raises(UserError, match="a Qwen3ForCausalLM, whose family can't be detected"):
        await open_verifier(nano_server.url, "transformers")
    with pytest.raises(UserError, match="a judge that writes runs on this machine"):
        await open_verifier(f"think-prm:{nano_server.url}", "transformers")


async def test_a_reward_model_is_no_judge(servers: dict[str, tuple[Server, str]]) -> None:
    pooling, _ = servers["nano"]
    judged = await open_verifier(f"rlhflow-prm:{pooling.url}", "transformers")
    with pytest.raises(UserError, match="v1/completions refused"):
        await judged.score(Problem("p", "1+1=?"), ["2"], 0, True)
