"""The options that commands share: they are made of the fields of `Job`, `Machine` and `RunOptions`."""

import functools
import inspect
import itertools
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from infer.errors import UserError
from infer.runs.fields import RUN, WHAT, Flag, Model, build, long_option
from infer.runs.job import INT64, Job, Machine

Result = TypeVar("Result")
Command = Callable[..., Result]
Reading = Callable[[dict[str, Any]], Any]

FAR = 2**31
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""The bounds of a field, as pydantic names them and as the help shows them."""


class RunOptions(BaseModel):
    """Options of a command apart from its jobs: how many problems it solves, and what it keeps and prints."""

    model_config = ConfigDict(frozen=True)

    limit: Annotated[int | None, Flag(WHAT), Field(ge=1, lt=INT64, description="Only the first so many problems.")] = (
        None
    )
    folder: Annotated[
        Path | None,
        Flag(RUN, long="--run"),
        Field(
            description="Folder of the run, or of a grid's runs, with one in it for each cell; an unfinished one is "
            "resumed. Default: a new one under runs/."
        ),
    ] = None
    trace: Annotated[bool, Flag(RUN), Field(description="Keep each problem's search tree, for infer show.")] = False
    as_json: Annotated[bool, Flag(RUN, long="--json"), Field(description="Print the result as JSON.")] = False
    debug: Annotated[bool, Flag(RUN), Field(description="Show tracebacks and the engines' own messages.")] = False

    @field_validator("folder", mode="before")
    @classmethod
    def _named(cls, folder: Any) -> Any:
        if folder == "":
            raise PydanticCustomError("empty", "it is empty: name a folder")  # Path("") is the current one
        return folder


FIELDS: dict[str, tuple[type[BaseModel], FieldInfo]] = {
    name: (model, field) for model in (Job, Machine, RunOptions) for name, field in model.model_fields.items()
}


def options_of_fields(*, without: Collection[str] = ()) -> Callable[[Command[Result]], Command[Result]]:
    """Gives a command its options, and calls its function with what they were set to.

    A parameter of the function that is annotated with a model stands for an option for each field, but for those
    `without` and those that have a parameter of their own. A parameter with the name of a field stands for that field's
    option; where it is a list, the option is repeatable. A parameter annotated with a typer option stays as it is.
    """

    def decorate(command: Command[Result]) -> Command[Result]:
        own = inspect.signature(command).parameters
        made = {name: _options(parameter, {*own, *without}) for name, parameter in own.items()}

        @functools.wraps(command)
        def called(**given: Any) -> Result:
            return command(**{name: read(given) for name, (_, read) in made.items()})

        parameters = [option for options, _ in made.values() for option in options]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorate


def _options(parameter: inspect.Parameter, taken: Collection[str]) -> tuple[list[inspect.Parameter], Reading]:
    """The options that a parameter stands for, and how its value is read from what they were set to."""
    name, kind = parameter.name, parameter.annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        names = [field for field in kind.model_fields if field not in taken]
        return [_option(field) for field in names], lambda given: _build(kind, {field: given[field] for field in names})
    if get_origin(kind) is Annotated:
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)], lambda given: given[name]

    def checked(value: Any) -> Any:
        return getattr(_build(FIELDS[name][0], {name: value}), name)

    if get_origin(kind) is list:
        return [_option(name, many=True)], lambda given: [checked(value) for value in given[name] or ()]
    return [_option(name)], lambda given: checked(given[name])


def _build(model: type[Model], given: dict[str, Any]) -> Model:
    """A model from the texts of its fields; None where an option was not given. Raises UserError."""
    values = {name: value for name, value in given.items() if value is not None}
    for name in values:
        if _flag(name).escapes:
            values[name] = _unescaped(values[name])
    return build(model, values, _long)


def _unescaped(value: str | list[str]) -> str | list[str]:
    return value.replace("\\n", "\n") if isinstance(value, str) else [each.replace("\\n", "\n") for each in value]


def _option(name: str, *, many: bool = False) -> inspect.Parameter:
    """The parameter that makes typer offer a field: as text, which the field's model reads and checks."""
    flag, field = _flag(name), FIELDS[name][1]
    switch, listed = field.annotation is bool, many or get_origin(field.annotation) is tuple
    default = None if field.default_factory or field.default in (None, ()) else field.default
    if default is not None and not switch:
        default = [str(default)] if listed else str(default)
    text = f"{field.description} Repeatable." if listed else field.description
    if flag.panel is None:
        offered = typer.Argument(help=text, show_default=False)
    else:
        renamed = flag.short or flag.long  # else typer names it by its field, and a switch's opposite as well
        offered = typer.Option(
            *filter(None, [_long(name), flag.short] if renamed else []),
            help=text,
            metavar=None if switch else flag.metavar or _type(field),
            envvar=flag.envvar,
            rich_help_panel=flag.panel,
        )
    kind: Any = bool if switch else list[str] | None if listed else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, offered])


def _flag(name: str) -> Flag:
    return next(each for each in FIELDS[name][1].metadata if isinstance(each, Flag))


def _long(name: str) -> str:
    return long_option(name, FIELDS[name][1])


def _type(field: FieldInfo) -> str:
    """A field's type and bounds, as a command's help shows them; not those so far away that nobody meets them."""
    kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
    name = next((kind.__name__.lower() for kind in kinds if kind is not NoneType), "str")
    bounds = [
        f"x{sign}{getattr(each, side):,}"
        for each in field.metadata
        for side, sign in SIGNS.items()
        if hasattr(each, side) and abs(getattr(each, side)) < FAR
    ]
    return f"<{name}>" + (f" [{', '.join(bounds)}]" if bounds else "")


def fresh_folder(name: str) -> Path:
    """A new folder under runs/, named by the time and `name`; two commands of the same second get two."""
    stem = f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{name}"
    try:
        for attempt in itertools.count(1):
            folder = Path("runs") / (stem if attempt == 1 else f"{stem}-{attempt}")
            with suppress(FileExistsError):
                folder.mkdir(parents=True)
                break
    except OSError as error:
        where = Path("runs").resolve()
        raise UserError(f"cannot make a folder in {where}: {error.strerror}: name one with --run") from error
    return folder
