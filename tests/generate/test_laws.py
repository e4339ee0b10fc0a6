"""The laws of generators on every backend, with nano-s in float32."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from infer.generate.openai import OpenAIGenerator
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint
from infer.testing import GeneratorLaws
from tests.servers import Server

pytestmark = pytest.mark.models


class TestVLLM(GeneratorLaws):
    @pytest.fixture
    def generator(self, nano_engine: Any) -> VLLMGenerator:
        return VLLMGenerator(nano_engine)

    def held(self, generator: Any) -> int:
        return int(generator._engine._engine.get_num_unfinished_requests())


class TestTransformers(GeneratorLaws):
    @pytest.fixture(scope="class")
    def generator(self) -> Any:
        from infer.generate.transformers import TransformersGenerator

        return TransformersGenerator(checkpoint("nano-s"), dtype="float32")

    def held(self, generator: Any) -> int:
        return sum(not row.done.done() for row in [*generator._queue, *generator._batched])


class TestVLLMServer(GeneratorLaws):
    @pytest.fixture
    async def generator(self, nano_server: Server) -> AsyncIterator[OpenAIGenerator]:
        generator = await OpenAIGenerator.connect(nano_server.url)
        yield generator
        await generator.close()

    def held(self, generator: OpenAIGenerator) -> int:
        return len(generator._running)


class TestServerOfTexts(TestVLLMServer):
    """The same server, used like one that neither takes nor reports token ids."""

    token_ids = False

    @pytest.fixture
    async def generator(self, nano_server: Server) -> AsyncIterator[OpenAIGenerator]:
        generator = await OpenAIGenerator.connect(nano_server.url)
        generator.token_exact = False
        yield generator
        await generator.close()
