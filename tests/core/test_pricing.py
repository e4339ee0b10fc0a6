"""Prices of requests: the ledger's fields, unknown sizes, and budgets in each unit."""

from dataclasses import replace

import pytest

from infer.core.ledger import UNITS, Budget, Ledger
from infer.core.pricing import Call, Pricing
from infer.core.usage import Usage
from infer.cost.attention import TopK
from infer.cost.config import PUBLIC, read_spec
from infer.cost.formulas import Serving, request_cost
from infer.cost.hardware import HARDWARE
from infer.errors import UserError

SPEC = read_spec(PUBLIC["Qwen/Qwen3-1.7B"])
PRICING = Pricing(HARDWARE["h100"], Serving(batch=64))
CALL = Call(SPEC, prefill=200, cached=64, generated=500)


def test_a_request_is_charged_to_its_role() -> None:
    cost = request_cost(SPEC, 200, 64, 500, serving=Serving(batch=64))
    usage, verifier = PRICING.usage(CALL), PRICING.usage(CALL, "verifier_")
    assert (usage.prefill, usage.cached, usage.generated) == (200, 64, 500)
    assert (usage.prefill_flops, usage.decode_bytes) == (int(cost.prefill.flops), int(cost.decode.bytes))
    assert (verifier.verifier_prefill, verifier.generated, verifier.prefill_flops) == (200, 0, 0)
    assert verifier.verifier_decode_flops == usage.decode_flops
    assert usage.flops == verifier.flops == pytest.approx(cost.flops, abs=2)
    assert (usage + verifier).eflops == 2 * usage.eflops  # type: ignore[operator]
    assert PRICING.dollars(usage) == pytest.approx(usage.device_picoseconds / 1e12 * 2.69 / 3600)  # type: ignore[operator]


def test_attention_is_priced_by_the_model_that_runs_it() -> None:
    """A sparse generator runs beside a dense judge of the same sizes.

    Each request has 499 decode steps after 200 tokens. They see 201 to 699 tokens, 450 on average. A token's keys and
    values are 28 layers x 2 x 8 heads x 128 numbers of two bytes. The sparse generator reads 64 tokens' in each step.
    """
    token_bytes = 28 * 2 * 8 * 128 * 2
    call = Call(SPEC, prefill=200, cached=0, generated=500)
    dense, judge = PRICING.usage(call), PRICING.usage(call, "verifier_")
    sparse = PRICING.usage(replace(call, spec=replace(SPEC, decode=TopK(64, free_choice=True))))
    assert (dense.decode_bytes or 0) - (sparse.decode_bytes or 0) == 499 * (450 - 64) * token_bytes
    assert sparse.prefill_bytes == dense.prefill_bytes
    assert judge.verifier_decode_bytes == dense.decode_bytes
    ledger = Ledger(Budget(1e15, "flops"), PRICING)
    assert ledger.price(call) > ledger.price(replace(call, spec=replace(SPEC, decode=TopK(64))))


def test_unknown_sizes_are_not_zero() -> None:
    usage = PRICING.usage(Call(None, 5, 0, 7), "verifier_") + PRICING.usage(CALL)
    assert usage.verifier_prefill == 5
    assert usage.verifier_prefill_flops is usage.flops is usage.eflops is PRICING.dollars(usage) is None
    assert usage.prefill_flops is not None
    with pytest.raises(UserError, match="a budget of flops needs models whose sizes are known: give it in tokens"):
        Ledger(Budget(1e12, "flops"), PRICING).price(Call(None, 5, 0, 7))
    free = Pricing(replace(HARDWARE["h100"], price=None))
    assert free.dollars(Usage()) is None


@pytest.mark.parametrize("unit", ["flops", "eflops", "dollars"])
def test_affordable_tokens_are_exact(unit: str) -> None:
    measure = UNITS[unit].measure
    assert measure is not None
    for wanted in (1, 77, 500):
        price = PRICING.price(measure, Call(SPEC, 200, 64, wanted))
        assert PRICING.affordable(measure, price, CALL) == wanted
        assert PRICING.affordable(measure, price * (1 - 1e-9), CALL) == wanted - 1
    assert PRICING.affordable(measure, PRICING.price(measure, CALL) * 10, CALL) == 500


def test_the_charge_is_at_most_the_reservation() -> None:
    for cached in range(0, 264, 33):
        done = PRICING.usage(Call(SPEC, 264 - cached, cached, 400))
        aside = Call(SPEC, 264, 0, 500)

        def price(unit: str, aside: Call = aside) -> float:
            return Ledger(Budget(1, unit), PRICING).price(aside)

        assert done.flops is not None
        assert done.eflops is not None
        assert done.flops <= price("flops")
        assert done.eflops <= price("eflops")
        assert (PRICING.dollars(done) or 1) <= price("dollars")
