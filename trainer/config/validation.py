"""Validate untrusted data, with error messages that name the field and the allowed values."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from trainer.config.schema import Schema, schema_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem

Record = TypeVar("Record", bound=BaseModel)

_SHOWN_VALUE_CHARACTERS = 40
_SHOWN_NAME_CHARACTERS = 64
_COMPRESSED = {
    **{b"\x1f\x8b": "a gzip", b"PK\x03\x04": "a zip", b"\x28\xb5\x2f\xfd": "a zstd"},
    **{b"\xfd7zXZ": "an xz", b"BZh": "a bzip2"},
}
"""Names of compressed formats by their first bytes."""
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_EXAMINED_BYTES = 4096
_MIN_ZERO_BYTES, _MIN_ZERO_SHARE = 8, 0.05


def parse(model: type[Record], data: object, code: ErrorCode = ErrorCode.INVALID_INPUT) -> Record:
    """Validate JSON values against a record type; raises AppError naming every wrong field."""
    try:
        text = to_json(data)
    except PydanticSerializationError:
        message = "a text holds half of a surrogate pair, which is not Unicode"
        raise refusal(code, FieldProblem(path="", message=message)) from None
    return parse_json(model, text, code)


def parse_json(model: type[Record], data: str | bytes, code: ErrorCode = ErrorCode.INVALID_INPUT) -> Record:
    """Validate JSON text against a record type; raises AppError naming every wrong field."""
    try:
        return model.model_validate_json(data if isinstance(data, str) else data.decode())
    except UnicodeDecodeError:
        raise refusal(code, FieldProblem(path="", message="the text is not UTF-8")) from None
    except ValidationError as error:
        raise refusal(code, *field_problems(error, model)) from error


def decoded(
    data: bytes, name: str, code: ErrorCode = ErrorCode.INVALID_INPUT, *, position: int = 0, is_line: bool = False
) -> str:
    """Decode UTF-8; raises AppError with the number of the wrong byte, where `position` is that of the first one.

    The error names the format of a file of other text. One line after the first (`is_line`) does not show a format.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        problem = None if position or is_line else format_problem(data, name)
        if problem is None:
            problem = f"{name} is not UTF-8: byte {position + error.start:,} cannot be decoded. Save the text as UTF-8."
        raise AppError(code, problem) from None


def format_problem(data: bytes, name: str) -> str | None:
    """Return a sentence about UTF-16 text or a compressed file, given its first bytes; None for anything else.

    UTF-16 without a byte order mark has NUL bytes at even positions only, or at odd positions only.
    """
    for magic, program in _COMPRESSED.items():
        if data.startswith(magic):
            return f"{name} is {program} file, not a text. Unpack it and give the text."
    start = data[:_EXAMINED_BYTES]
    zeros = [position for position, byte in enumerate(start) if byte == 0]
    has_one_parity = len({position % 2 for position in zeros}) == 1
    has_many = len(zeros) >= max(_MIN_ZERO_BYTES, _MIN_ZERO_SHARE * len(start))
    if start.startswith(_UTF_16_MARKS) or (has_one_parity and has_many):
        return f"{name} is UTF-16 text. Save it as UTF-8."
    return None


def refusal(code: ErrorCode, *problems: FieldProblem) -> AppError:
    """Return one error with all problems."""
    text = "; ".join(problem.message.rstrip(".") for problem in problems)
    return AppError(code, text if text.endswith("?") else f"{text}.", problems)


def combined(errors: Sequence[AppError], otherwise: ErrorCode) -> AppError:
    """Combine errors into one, with their common code, or UNSUPPORTED_BACKEND if one has it, or `otherwise`."""
    codes = {error.code for error in errors}
    missing = ErrorCode.UNSUPPORTED_BACKEND
    code = codes.pop() if len(codes) == 1 else missing if missing in codes else otherwise
    return refusal(code, *(problem for error in errors for problem in error.details))


def field_problems(error: ValidationError, model: type[BaseModel]) -> tuple[FieldProblem, ...]:
    """Return the problem of each wrong field in one clause; never shows a secret."""
    schema = schema_of(model)
    problems: list[FieldProblem] = []
    for item in _items_of(error):
        problem = _problem(item, schema)
        if problems and problem.path and problems[-1].path == problem.path:  # another member of a union
            first = problems.pop().message.split(", you gave")[0]
            problem = changed(problem, message=f"{first} or {problem.message.split('` must be ')[-1]}")
        problems.append(problem)
    return tuple(problems)


def did_you_mean(name: str, known: Sequence[str], prefix: str = "") -> str:
    """Return '; did you mean `x`?' for the nearest known name, after a prefix, or '' where none is near.

    A name is also near that has the given one as some of its words, such as `num_epochs` for `epochs`.
    """
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    near = near or [k for k in known if f"_{name}_" in f"_{k.replace('.', '_')}_"]
    return f"; did you mean `{prefix}{near[0]}`?" if near else ""


def takes_any_text(model: type[BaseModel], path: str) -> bool:
    """Return True if a field (dots lead into blocks) takes free text."""
    known, field = schema_of(model).locate(path.split("."))
    kinds = {"choice" if member.choices else member.type for member in field.members}
    return known == path and {"string"} <= kinds <= {"string", "null"}


def shown_value(value: object) -> str | None:
    """Return a value for a message; None if it is too long to show."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN_VALUE_CHARACTERS else None


def unreadable(path: str | Path, error: OSError) -> str:
    """Return the sentence for a file that cannot be opened, with its path as it was given."""
    shown = _on_one_line(str(path))
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"There is no file '{shown}'."
    if isinstance(error, IsADirectoryError):
        return f"'{shown}' is a folder: give a file."
    return f"The file '{shown}' cannot be read."


def shown_name(name: str) -> str:
    """Return a given name for a message: on one line, and shortened."""
    return _on_one_line(name[:_SHOWN_NAME_CHARACTERS])


def _on_one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


class _Item(BaseModel):
    """An item of `ValidationError.errors()`."""

    type: str
    loc: tuple[str | int, ...]
    msg: str
    input: object = None


_items = TypeAdapter(list[_Item])


def _items_of(error: ValidationError) -> list[_Item]:
    return _items.validate_json(error.json(include_url=False, include_context=False))


_WORDS = {
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a block of fields",
    "model_type": "must be a block of fields",
}


def _problem(item: _Item, record: Schema) -> FieldProblem:
    if item.type == "extra_forbidden":
        return _unknown_field(item, record)
    path, schema = record.locate(item.loc)
    allowed = schema.words()
    if item.type == "missing":
        return FieldProblem(path=path, message=f"`{path}` is required", allowed=allowed)
    message = _WORDS.get(item.type) or _plain(item.msg)
    if not path:
        return FieldProblem(path="", message=message)
    given: object = item.input
    if item.type.startswith("union_tag_") and (tag := schema.tag):
        path = f"{path}.{tag}"
        given = given.get(tag) if isinstance(given, dict) else None
        choices = sorted(repr(choice) for member in schema.members for choice in member.choices_of(tag))
        allowed = f"one of {', '.join(choices)}"
        if given is None:
            return FieldProblem(path=path, message=f"`{path}` is required", allowed=allowed)
        message = f"must be {allowed}"
    elif item.type == "value_error":
        allowed = message.removeprefix("must be ")
    value = None if any(member.is_secret for member in schema.members) else shown_value(given)
    shown = "" if value is None else f", you gave {value}{_hint(item)}"
    return FieldProblem(path=path, message=f"`{path}` {message}{shown}", value=value, allowed=allowed)


def _unknown_field(item: _Item, record: Schema) -> FieldProblem:
    parent, block = record.locate(item.loc[:-1])
    name = shown_name(str(item.loc[-1]))
    path = f"{parent}.{name}".removeprefix(".")
    fields = dict(record.fields())
    elsewhere = [other for other in fields if other.endswith(f".{name}")]
    near = did_you_mean(name, elsewhere or block.names) or did_you_mean(name, list(fields))
    holds_secrets = any(member.is_secret for field in fields.values() for member in field.members)
    return FieldProblem(
        path=path,
        message=f"unknown field `{path}`{near}",
        value=None if holds_secrets else shown_value(item.input),  # it may be a secret under a wrong name
        allowed=f"one of {', '.join(block.names)}",
    )


def _plain(message: str) -> str:
    text = re.sub(r"^(Value error, )|(Input|String|Tuple) should ", "", message)
    text = re.sub(r"^(be|have|match) ", r"must \1 ", text).replace(" after validation", "").split(", unable to ")[0]
    return text[:1].lower() + text[1:]


def _hint(item: _Item) -> str:
    if item.type == "bool_type" and item.input in ("yes", "no", "on", "off"):
        return " (yes, no, on and off are words here)"
    if item.type == "string_type" and isinstance(item.input, int | float):
        return " (in quotes it would be text)"
    return ""
