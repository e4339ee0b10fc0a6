"""The names that --prm takes, detection of a checkpoint's family, ensembles, outcome verifiers. No model runs."""

import math
from typing import Any

import pytest

from infer.core.pricing import Call
from infer.core.problem import Problem
from infer.core.tree import Aggregation, Node, aggregate
from infer.core.verifier import Scores, Verifier
from infer.cost.model import ModelSpec
from infer.errors import BudgetSpent, TooLong, UserError
from infer.generate.readers import log_odds, sigmoid
from infer.runs.verifiers import VerifierRef
from infer.testing import toy
from infer.verifiers.ensemble import Ensemble
from infer.verifiers.families import recognize
from infer.verifiers.prm import numbered
from tests.engines import open_verifier


@pytest.mark.parametrize(
    ("model", "config", "family"),
    [
        ("Qwen/Qwen2.5-Math-PRM-7B", {"architectures": ["Qwen2ForProcessRewardModel"]}, "qwen-prm"),
        ("/models/any", {"architectures": ["Qwen2ForProcessRewardModel"], "num_labels": 2}, "qwen-prm"),
        ("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B", {"architectures": ["Qwen2ForPrmModel"]}, "skywork-prm"),
        ("/models/Skywork-o1-Open-PRM-Qwen-2.5-7B", {"architectures": ["Qwen2ForCausalLM"]}, "skywork-prm"),
        ("RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", {"architectures": ["LlamaForCausalLM"]}, "rlhflow-prm"),
        ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", {"architectures": ["LlamaForCausalLM"]}, "rlhflow-prm"),
        ("peiyi9979/math-shepherd-mistral-7b-prm", {"architectures": ["MistralForCausalLM"]}, "math-shepherd"),
        ("x", {"architectures": ["MistralForCausalLM"], "_name_or_path": "a/math-shepherd-x-prm"}, "math-shepherd"),
        (
            "Skywork/Skywork-Reward-V2-Llama-3.1-8B",
            {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
            "outcome",
        ),
        ("nano-prm-s", {"architectures": ["Qwen3ForSequenceClassification"]}, "classifier"),
        ("GenPRM/GenPRM-7B", {"architectures": ["Qwen2ForCausalLM"]}, "gen-prm"),
        ("launch/ThinkPRM-1.5B", {"architectures": ["Qwen2ForCausalLM"]}, "think-prm"),
    ],
)
def test_families_are_told(model: str, config: dict[str, Any], family: str) -> None:
    assert recognize(model, config) == family


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "a Qwen2ForCausalLM, whose family can't be detected"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": dict.fromkeys(range(5))}, "with 5 labels"),
        ({"architectures": ["LlamaForRewardModelWithGating"]}, "LlamaForRewardModelWithGating"),
        ({}, "a ?, whose family"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "_name_or_path": "/home/u/genprm-runs/Qwen2.5-7B"},
            "Qwen2ForCausalLM",
        ),
        (
            {"architectures": ["MistralForCausalLM"], "_name_or_path": "peiyi9979/math-shepherd-mistral-7b-rl"},
            "Mistral",
        ),
        (
            {"architectures": ["LlamaForTokenClassification"], "_name_or_path": "x/llama3.1-8b-prm"},
            "TokenClassification",
        ),
    ],
)
def test_a_model_of_no_known_family_gets_the_list_of_families(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        # the names of parent folders say nothing about the model
        recognize("/home/math-shepherd/genprm/model", config)
    assert says in str(error.value)
    assert "classifier, outcome, qwen-prm, skywork-prm, rlhflow-prm, math-shepherd, gen-prm, think-prm" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("text", "combination", "members"),
    [
        ("nano-prm-s", "mean", [("nano-prm-s", None, 1)]),
        ("owner/name", "mean", [("owner/name", None, 1)]),
        ("math-shepherd:owner/name", "mean", [("owner/name", "math-shepherd", 1)]),
        ("think-prm:owner/name#chains=8", "mean", [("owner/name", "think-prm", 8)]),
        ("self", "mean", [("self", None, 1)]),
        ("http://localhost:8000/v1", "mean", [("http://localhost:8000/v1", None, 1)]),
        ("qwen-prm:https://host", "mean", [("https://host", "qwen-prm", 1)]),
        ("nano-prm-s,owner/name", "mean", [("nano-prm-s", None, 1), ("owner/name", None, 1)]),
        (
            "min:rlhflow-prm:a/b, http://c:80,self",
            "min",
            [("a/b", "rlhflow-prm", 1), ("http://c:80", None, 1), ("self", None, 1)],
        ),
        ("prod:a/b,a/c", "prod", [("a/b", None, 1), ("a/c", None, 1)]),
    ],
)
def test_names_that_prm_takes(text: str, combination: str, members: list[tuple[str, str | None, int]]) -> None:
    found = VerifierRef.named(text)
    assert found.combination == combination
    assert [(member.name, member.family, member.chains) for member in found.members] == members
    loaded = [name for name, *_ in members if name != "self" and not name.startswith("http")]
    assert [member.model.name for member in found.members if member.model is not None] == loaded
    assert found.loads == bool(loaded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nano-prm-x", "did you mean nano-prm-s"),
        ("math-sheperd:a/b", "unknown family 'math-sheperd': did you mean math-shepherd?"),
        ("max:a/b,a/c", "unknown family 'max'"),
        ("a/b,", "no model is named"),
        ("gen-prm:", "no model is named"),
        ("", "no model is named"),
        ("think-prm:a/b#chains=0", "#chains=0 is not #chains=N"),
        ("think-prm:a/b#votes=3", "#votes=3 is not #chains=N"),
        ("/no/such/folder", "there is no such folder"),
    ],
)
def test_names_that_prm_refuses(text: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        VerifierRef.named(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


async def test_a_generator_on_a_server_does_not_evaluate_itself() -> None:
    with pytest.raises(UserError, match="there is no generator"):
        await open_verifier("self", "vllm")


async def test_a_server_that_is_not_there_is_an_error_of_one_line() -> None:
    with pytest.raises(UserError, match=r"no server answers at http://127\.0\.0\.1:9"):
        await open_verifier("http://127.0.0.1:9", "vllm")


def test_log_odds() -> None:
    for wrong, correct in [(0.0, 0.0), (-3.0, 2.0), (50.0, -40.0), (-400.0, 800.0), (800.0, -400.0)]:
        odds = log_odds([wrong, correct])
        assert odds == correct - wrong
        softmax = 1 / (1 + math.exp(min(wrong - correct, 700)))
        assert sigmoid(odds) == pytest.approx(softmax, rel=1e-12, abs=1e-300)
    assert log_odds([2.5]) == 2.5
    rewards = [-30.0, -2.0, 0.0, 1.0, 17.0, 25.0, 30.0]  # outcome models reach these: in float32 the last three score 1
    scores = [sigmoid(reward) for reward in rewards]
    assert scores == sorted(set(scores))


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("Let's solve this.", "Let's solve this."),
        ("Step 1: Let x = 1.\n\n", "Let x = 1."),
        ("## Step 2: Then", "Then"),
        ("**Step 3:** So", "So"),
        ("**Step 3**: So", "So"),
        ("Step 12. **So**", "**So**"),
        ("### Step 4\nIt is", "It is"),
        ("Step 4", ""),
        ("", ""),
        ("Step 1 gives 12, which", "Step 1 gives 12, which"),
        ("Step 1.5 up", "Step 1.5 up"),
    ],
)
def test_a_step_has_the_number_of_its_place_and_no_other(step: str, text: str) -> None:
    assert numbered(step, 7) == f"Step 7: {text}".rstrip()


def test_max_aggregation() -> None:
    assert aggregate([0.2, 0.9, 0.4], "max") == 0.9


class Fixed:
    """A verifier with fixed scores, one for each step number."""

    aggregation: Aggregation = "prod"
    spec: ModelSpec | None = None

    def __init__(self, scores: list[float], stepwise: bool = True) -> None:
        self.scores, self.stepwise = scores, stepwise
        self.closed = False

    async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Scores:
        values = self.scores[known : len(steps)] if self.stepwise else [self.scores[len(steps) - 1]]
        return Scores(values, await self.most(problem, steps, known, finished))

    async def most(self, problem: Problem, steps: Any, known: int, finished: bool) -> list[Call]:
        return [Call(None, len(steps), known, 1)]

    def describe(self) -> dict[str, Any]:
        return {"family": "fixed"}

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("combination", "combined"),
    [("mean", [0.3, 0.75]), ("min", [0.2, 0.5]), ("prod", [0.08, 0.5])],
)
async def test_ensembles(combination: Any, combined: list[float]) -> None:
    members = [Fixed([0.9, 0.2, 0.5]), Fixed([0.8, 0.4, 1.0])]
    ensemble = Ensemble(members, combination)
    scores = await ensemble.score(Problem("p", "?"), ["a", "b", "c"], 1, True)
    assert scores.values == pytest.approx(combined)
    assert (scores.prefill, scores.cached, scores.generated) == (6, 2, 2)
    assert ensemble.aggregation == "prod"
    await ensemble.close()
    assert all(member.closed for member in members)


async def test_a_solution_too_long_for_one_member_is_so_for_all_and_the_calls_made_are_told() -> None:
    class Short(Fixed):
        async def score(self, problem: Problem, steps: Any, known: int, finished: bool) -> Scores:
            raise TooLong("a solution of 3 tokens", [Call(None, 7, 0, 5)])

    with pytest.raises(TooLong, match="3 tokens") as raised:
        await Ensemble([Short([]), Fixed([0.8, 0.4, 1.0])], "min").score(Problem("p", "?"), ["a", "b"], 0, True)
    assert raised.value.calls == [Call(None, 7, 0, 5), Call(None, 2, 0, 1)]


def test_an_ensemble_is_of_one_kind() -> None:
    with pytest.raises(UserError, match="of one kind"):
        Ensemble([Fixed([]), Fixed([], stepwise=False)], "mean")


async def test_a_verifier_of_whole_solutions_makes_one_pass_a_node() -> None:
    outcome: Verifier = Fixed([0.1 * i for i in range(1, 10)], stepwise=False)
    search = await toy.search(toy.setting("5prm", verifier=outcome, step_tokens=20))
    (whole,) = await search.sample(search.root, until="end")
    await search.score([whole])
    assert search.ledger.usage.passes == 1
    assert len(whole.step_scores) == 1
    node = search.root
    for passes in range(2, 6):
        (node,) = await search.sample(node if not node.final else search.root)
        await search.score([node])
        assert search.ledger.usage.passes == passes
        assert len(node.step_scores) == 1
        assert search.value(node) == node.step_scores[0]
    assert search.left == 0
    with pytest.raises(BudgetSpent):
        await search.score([Node(search.root, 9, [1], 1, "1", "end")])
