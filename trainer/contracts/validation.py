"""From untrusted data to a frozen record, or to one sentence that names the field and what would be right."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from trainer.contracts.errors import AppError, ErrorCode, FieldProblem

Record = TypeVar("Record", bound=BaseModel)

_SHOWN_VALUE_CHARACTERS = 40


def parse(model: type[Record], data: object, code: ErrorCode = ErrorCode.INVALID_INPUT) -> Record:
    """Validate data (as JSON would hold it) against a record type; raises AppError naming every wrong field."""
    return parse_json(model, to_json(data), code)


def parse_json(model: type[Record], data: str | bytes, code: ErrorCode = ErrorCode.INVALID_INPUT) -> Record:
    """Validate JSON text against a record type; raises AppError naming every wrong field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        problems = tuple(field_problems(error, model))
        raise AppError(code, "; ".join(problem.message for problem in problems) + ".", problems) from error


def field_problems(error: ValidationError, model: type[BaseModel]) -> Sequence[FieldProblem]:
    """Say of each wrong field, in one clause, what is wrong with it."""
    problems: list[FieldProblem] = []
    for item in _items.validate_json(error.json(include_url=False, include_context=False)):
        # a part like "constrained-int" or "literal['auto']" names an alternative of a union, not a field
        path = ".".join(str(part) for part in item.loc if not re.search(r"[\[\]-]", str(part)))
        if item.type == "extra_forbidden":
            message = f"unknown field `{path}`{did_you_mean(str(item.loc[-1]), field_names(model))}"
        elif item.type == "missing":
            message = f"`{path}` is required"
        elif not path:
            message = _plain(item.msg)
        else:
            message = f"`{path}` {_plain(item.msg)}{_shown(item.input)}"
        if problems and path and problems[-1].path == path:
            first = problems.pop().message.split(", you gave")[0]
            message = f"{first} or {message.split('` must be ')[-1]}"
        problems.append(FieldProblem(path=path, message=message))
    return problems


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return '; did you mean `x`?' for the nearest known name, or '' where none is near."""
    near = get_close_matches(name, known, n=1, cutoff=0.6) or [k for k in known if name and name in k][:1]
    return f"; did you mean `{near[0]}`?" if near else ""


def field_names(model: type[BaseModel]) -> list[str]:
    """All field names of a record type and of the records inside it, outermost first."""
    described: object = model.model_json_schema()
    schema = _Schema.model_validate(described)
    return [*schema.properties, *(name for inner in schema.defs.values() for name in inner.properties)]


class _Item(BaseModel):
    """The part of pydantic's account of an error that is used here."""

    type: str
    loc: tuple[str | int, ...]
    msg: str
    input: object = None


class _Schema(BaseModel):
    """The part of a JSON schema that is used here."""

    properties: dict[str, object] = Field(default_factory=dict)
    defs: dict[str, "_Schema"] = Field(default_factory=dict, alias="$defs")


_items = TypeAdapter(list[_Item])


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return text[:1].lower() + text[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return f", you gave {text}" if len(text) <= _SHOWN_VALUE_CHARACTERS else ""
