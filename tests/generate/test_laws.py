"""The laws of generators on every backend, with nano-s in float32."""

from typing import Any, ClassVar

import pytest

from infer.generate.openai import OpenAIGenerator
from infer.generate.vllm import VLLMGenerator
from infer.nano import checkpoint
from infer.testing import GeneratorLaws
from tests.engines import TESTED
from tests.servers import Server

pytestmark = pytest.mark.models


class TestVLLM(GeneratorLaws):
    @pytest.fixture
    def generator(self, nano_engine: Any) -> VLLMGenerator:
        return VLLMGenerator(nano_engine)

    async def open(self) -> VLLMGenerator:
        """An engine of its own, for the law that closes it."""
        from infer.generate.engine import start_engine

        return VLLMGenerator(start_engine(checkpoint("nano-xs"), "generate", **TESTED))

    def held(self, generator: Any) -> int:
        return int(generator._engine._engine.get_num_unfinished_requests())


class TestTransformers(GeneratorLaws):
    async def open(self) -> Any:
        from infer.generate.transformers import TransformersGenerator

        return TransformersGenerator(checkpoint("nano-s"), dtype="float32")

    def held(self, generator: Any) -> int:
        return sum(not row.done.done() for row in [*generator._queue, *generator._batched])


class TestVLLMServer(GeneratorLaws):
    sized = False
    url: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class")
    def server(self, nano_server: Server) -> None:
        type(self).url = nano_server.url

    async def open(self) -> OpenAIGenerator:
        return await OpenAIGenerator.connect(self.url)

    def held(self, generator: OpenAIGenerator) -> int:
        return len(generator._running)


class TestServerOfTexts(TestVLLMServer):
    """The same server, used like one that neither takes nor reports token ids."""

    token_ids = False

    async def open(self) -> OpenAIGenerator:
        generator = await super().open()
        generator.token_exact = False
        return generator
