"""Programs with hidden tests: HumanEval and MBPP, from the hub at one commit, or from a local file in their format."""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, ValidationError

from infer.core.problem import Problem
from infer.core.records import reason_of
from infer.evalsets import files, hub
from infer.evalsets.base import EvalSet, Template
from infer.evalsets.cells import RowError
from infer.evalsets.graders.programs import HiddenTests, Programs
from infer.evalsets.rows import Columns, Row, made

COMPLETE = Template(
    "Complete this Python function. Answer with the whole function and its imports, in one ```python block.\n\n"
    "```python\n{problem}\n```"
)
WRITE = Template("{problem}\n\nAnswer with the whole Python program, in one ```python block.")

Text = Annotated[str, Field(min_length=1)]


class HumanEvalRow(BaseModel):
    """A function to complete (2107.03374). `test` defines `check(candidate)`."""

    task_id: Text
    prompt: Text
    entry_point: Text
    test: Text

    def problem(self, source: str) -> Problem:
        defined = re.search(rf"^def {re.escape(self.entry_point)}\b", self.prompt, re.MULTILINE)
        start = defined.start() if defined else 0
        tests = HiddenTests(
            entry=self.entry_point,
            setup=self.prompt[:start],
            head=re.split("\"\"\"|'''", self.prompt[start:], maxsplit=1)[0].rstrip(),
            codes=(f"{self.test}\ncheck(candidate)",),
        )
        return Problem(self.task_id, self.prompt, tests.model_dump_json(), source=source)


class MBPPRow(BaseModel):
    """A function to write from one sentence (2108.07732). Its tests are asserts, and the problem shows them."""

    task_id: Annotated[str, BeforeValidator(str)]
    text: Annotated[Text, Field(validation_alias=AliasChoices("text", "prompt"))]
    test_list: Annotated[list[Text], Field(min_length=1)]
    test_setup_code: str = ""
    challenge_test_list: list[str] = []

    def problem(self, source: str) -> Problem:
        codes = (*self.test_list, *self.challenge_test_list)
        tests = HiddenTests(entry=_called(self.test_list[0]), setup=self.test_setup_code, codes=codes)
        prompt = "\n".join([self.text, "", "The program must pass these tests:", "", *self.test_list])
        return Problem(f"mbpp-{self.task_id}", prompt, tests.model_dump_json(), source=source)


Format = type[HumanEvalRow] | type[MBPPRow]
FORMATS: dict[Format, Template] = {HumanEvalRow: COMPLETE, MBPPRow: WRITE}


def of_file(path: Path) -> EvalSet | None:
    """The set of a local file in HumanEval's or MBPP's format; None for a file whose first row is of neither."""
    _, row = next(files.rows(path), ("", {}))
    for format, template in FORMATS.items():
        required = {name for name, field in format.model_fields.items() if field.is_required()} - {"text"}
        if required <= row.keys():
            found = files.open_file(path, Columns(), read=partial(problems, format, where=str(path)))
            return replace(found, template=template, grader=Programs)
    return None


def problems(format: Format, rows: Iterable[tuple[str, Row]], where: str) -> Iterator[Problem]:
    """Yields a problem for each row. Raises `UserError` for a row that does not fit, with its place and the reason."""

    def make(_: int, row: Row) -> Problem:
        try:
            return format.model_validate(row).problem(where)
        except ValidationError as error:
            raise RowError(reason_of(error.errors()[0])) from None
        except SyntaxError as error:
            raise RowError(f"a test is no Python: {error.msg}") from None

    return made(rows, make, where=where, fix="each task_id must be unique")


def _called(test: str) -> str:
    """The function that a test is about: the first that it calls which is no builtin."""
    calls = (node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call))
    names = [called.id for called in calls if isinstance(called, ast.Name)]
    return next((name for name in names if not hasattr(builtins, name)), names[0] if names else "")


def _set(name: str, summary: str, format: Format, repo: str, revision: str, file: str, license: str) -> EvalSet:
    return EvalSet(
        name=name,
        summary=summary,
        source=f"{repo}@{revision}",
        load=partial(hub.pinned, name, repo, revision, file, read=partial(problems, format, where=name)),
        template=FORMATS[format],
        license=license,
        grader=Programs,
    )


HUMANEVAL = _set(
    "humaneval",
    "164 Python functions to complete, with hidden tests (2107.03374)",
    HumanEvalRow,
    "openai/openai_humaneval",
    "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
    "openai_humaneval/test-00000-of-00001.parquet",
    license="MIT",
)

MBPP = _set(
    "mbpp",
    "500 Python functions to write from one sentence and three tests, the test split (2108.07732)",
    MBPPRow,
    "google-research-datasets/mbpp",
    "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
    "full/test-00000-of-00001.parquet",
    license="CC-BY-4.0",
)
