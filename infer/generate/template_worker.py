"""The process in which a checkpoint's chat template is tried: JSON on standard input, the text on standard output.

A template is the checkpoint's own program. jinja2's sandbox keeps it from Python's objects, but not from endless loops
and texts of any length: here they end this process alone. It has the filters and functions that transformers gives to
templates. It imports nothing of ours, so it starts in a tenth of a second. A template that fails ends it with status 1
and the reason on standard error.
"""

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 1 << 30


class Generation(Extension):
    """`{% generation %}`, which marks what the assistant wrote: here just its text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(template: str, tokens: dict[str, str], messages: list[dict[str, str]]) -> str:
    """The text of a chat. Raises whatever the template raises."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    told = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    return environment.from_string(template).render(**told, **tokens)


def main() -> None:
    template, tokens, messages, seconds = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # SIGKILL: it interrupts C code too
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        sys.stdout.write(render(template, tokens, messages))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
