"""Laws that every strategy and every generator keeps, as tests to derive from, and the toy models that they run on.

They need pytest and pytest-asyncio, which `pip install infer[test]` brings.
"""

import pytest

pytest.register_assert_rewrite("infer.testing.strategy_laws", "infer.testing.generator_laws")

from infer.testing.generator_laws import GeneratorLaws  # noqa: E402  (a failing assert shows its values)
from infer.testing.strategy_laws import StrategyLaws  # noqa: E402

__all__ = ["GeneratorLaws", "StrategyLaws"]
