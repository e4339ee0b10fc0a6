"""A trace shows what the search did."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infer.core.generator import Completion
from infer.core.problem import Problem
from infer.core.trace import Trace, TracedNode, read_trace, trace_path
from infer.core.tree import Node
from infer.errors import UserError, WriteError
from infer.testing import toy

MESSAGES = [{"role": "user", "content": "7"}]


def below(node: TracedNode) -> list[TracedNode]:
    return [node, *(deeper for child in node.children for deeper in below(child))]


async def test_a_torn_trace_is_read_up_to_the_tear(tmp_path: Path) -> None:
    setting = replace(toy.setting(), watch=partial(Trace, tmp_path))
    search = await toy.search(setting)
    (node,) = await search.sample(search.root)
    await search.score([node])
    search.prune([node])
    path = trace_path(tmp_path, "p7")
    whole = path.read_bytes()
    trace = read_trace(path)
    assert not trace.complete
    assert trace.roots[0].children[0].pruned_at is not None
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[0], len(whole)):
        path.write_bytes(whole[:cut])
        nodes = below(read_trace(path).roots[0])
        assert len(nodes) == (2 if cut >= ends[1] - 1 else 1)
    path.write_bytes(b"{}\n")
    with pytest.raises(UserError, match=r"^line 1 of .* is no event of a trace \(version: Field required\): mend or"):
        read_trace(path)
    path.write_bytes(whole.replace(b'"version":1', b'"version":9'))
    with pytest.raises(UserError, match="newer infer"):
        read_trace(path)
    path.write_bytes(whole.replace(b"{", b"<", 2))
    with pytest.raises(UserError, match=r"^line 1 of .* is no event of a trace \(Invalid JSON: "):
        read_trace(path)
    with pytest.raises(UserError, match=r"no trace .*--trace"):
        read_trace(trace_path(tmp_path, "absent"))


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\x85b", "\u2200\U0001f600"])
def test_any_text_can_be_read_and_torn_anywhere(text: str, tmp_path: Path) -> None:
    root = Node.of_prompt([1, 2])
    trace = Trace(tmp_path, Problem("p", "q"), root)
    node = Node(root, 0, [3], 1, text, "end")
    trace.sampled([node], 1.0)
    path = trace_path(tmp_path, "p")
    whole = path.read_bytes()
    assert [child.text for child in read_trace(path).roots[0].children] == [text]
    for cut in range(whole.index(b"\n") + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert not read_trace(path).roots[0].children


async def test_a_trace_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="cannot write the trace"):
        await toy.search(replace(toy.setting(), watch=partial(Trace, tmp_path / "absent")))


def test_every_id_has_a_file_of_its_own(tmp_path: Path) -> None:
    ids = ["a", "A", "a/b", "a%2Fb", ".", "..", "%2E", "x" * 300, "x" * 300 + "y", "ä", "\udcff", "a\0b", "a\x1b", ""]
    paths = {trace_path(tmp_path, problem) for problem in ids}
    assert len(paths) == len(ids)
    for path in paths:
        assert path.parent == tmp_path
        path.touch()


async def test_a_server_without_token_ids_still_reports_their_numbers(tmp_path: Path) -> None:
    """Once every node showed 0 tokens, and the prompt showed its number of characters."""

    class Texts(toy.ToyGenerator):
        async def encode(self, messages: Any) -> Any:
            return "".join(message["content"] for message in messages)

        async def generate(self, request: Any) -> Any:
            return [Completion([], 5, "3\n\n", "step", None, 0, 0) for _ in range(request.n)]

    setting = replace(toy.setting(generator=Texts()), watch=partial(Trace, tmp_path))
    search = await toy.search(setting)
    await search.sample(search.root, 2)
    trace = read_trace(trace_path(tmp_path, "p7"))
    assert trace.prompt == "7"
    assert trace.roots[0].num_tokens is None
    assert [node.num_tokens for node in trace.roots[0].children] == [5, 5]
