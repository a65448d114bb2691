"""Validate untrusted data, with messages that name the field and the allowed values; walk nested fields by path."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from trainer.config.schema import Schema, schema_of
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, refusal

Record = TypeVar("Record", bound=BaseModel)

_SHOWN_VALUE_CHARACTERS = 40
_SHOWN_NAME_CHARACTERS = 64
_COMPRESSED = {
    **{b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file", b"\x28\xb5\x2f\xfd": "a zstd file"},
    **{b"\xfd7zXZ": "an xz file", b"BZh": "a bzip2 file"},
}
"""Names of compressed formats by their first bytes."""
_DOCUMENTS = {b"%PDF-": "a PDF document", b"{\\rtf": "an RTF document", b"\xd0\xcf\x11\xe0": "an Office document"}
"""Names of document formats by their first bytes."""
_ZIP, _OFFICE_PARTS = b"PK\x03\x04", (b"[Content_Types].xml", b"mimetypeapplication/")
"""The first bytes of a zip file, and names in those that are documents."""
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ISO_2022 = {b"\x1b$B": "JP", b"\x1b$@": "JP", b"\x1b$(D": "JP", b"\x1b$)C": "KR", b"\x1b$)A": "CN"}
"""The encodings by the escape sequences before their characters."""
_NAME = re.compile(r"\^\[a-z0-9\]\[a-z0-9(?P<signs>[_-]+)\]\{0,(?P<more>\d+)\}\$")
"""The pattern of a name that is part of an id."""
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
    """Decode UTF-8 without NUL; raises AppError with the number of the wrong byte, `position` being the first one.

    The error names the format of a file of other text. One line after the first (`is_line`) does not show a format.
    """
    nul = data.find(b"\0")
    problem = (_iso_2022_problem if position or is_line else format_problem)(data, name)
    if problem is None and nul >= 0:
        problem = f"{name} is not a text file: byte {position + nul:,} is NUL. Give a plain text in UTF-8."
    try:
        if problem is None:
            return data.decode()
    except UnicodeDecodeError as error:
        problem = f"{name} is not UTF-8: byte {position + error.start:,} cannot be decoded. Save the text as UTF-8."
    raise AppError(code, problem)


def format_problem(data: bytes, name: str) -> str | None:
    """Return a sentence about UTF-16, ISO-2022, a document or a compressed file by its first bytes; None for others.

    UTF-16 without a byte order mark has NUL bytes at even positions only, or at odd positions only.
    """
    start = data[:_EXAMINED_BYTES]
    is_office = start.startswith(_ZIP) and any(part in start for part in _OFFICE_PARTS)
    kinds = (
        ["an Office document"] if is_office else [kind for magic, kind in _DOCUMENTS.items() if start.startswith(magic)]
    )
    if kinds:
        return f"{name} is {kinds[0]}, not a text. Save it as plain text in UTF-8 and give that file."
    for magic, program in _COMPRESSED.items():
        if data.startswith(magic):
            return f"{name} is {program}, not a text. Unpack it and give the text."
    zeros = [position for position, byte in enumerate(start) if byte == 0]
    has_one_parity = len({position % 2 for position in zeros}) == 1
    has_many = len(zeros) >= max(_MIN_ZERO_BYTES, _MIN_ZERO_SHARE * len(start))
    if start.startswith(_UTF_16_MARKS) or (has_one_parity and has_many):
        return f"{name} is UTF-16 text. Save it as UTF-8."
    return _iso_2022_problem(data, name)


def _iso_2022_problem(data: bytes, name: str) -> str | None:
    """Return a sentence about text in ISO-2022-JP, -KR or -CN, which is valid UTF-8 and reads as garbage."""
    found = next((kind for sequence, kind in _ISO_2022.items() if sequence in data), None) if b"\x1b$" in data else None
    return None if found is None else f"{name} is ISO-2022-{found} text. Save it as UTF-8."


def combined(errors: Sequence[AppError], otherwise: ErrorCode) -> AppError:
    """Combine errors into one, with their common code, or UNSUPPORTED_BACKEND if one has it, or `otherwise`."""
    codes = {error.code for error in errors}
    missing = ErrorCode.UNSUPPORTED_BACKEND
    code = codes.pop() if len(codes) == 1 else missing if missing in codes else otherwise
    return refusal(code, *(problem for error in errors for problem in error.details))


def field_problems(error: ValidationError, model: type[BaseModel]) -> tuple[FieldProblem, ...]:
    """Return the problem of each wrong field in one clause; never shows a secret."""
    record = schema_of(model)
    fields: list[list[_Item]] = []  # a field has an item for each member of a union
    for item in _items.validate_json(error.json(include_url=False)):
        path, _ = record.locate(item.loc)
        if path and fields and path == record.locate(fields[-1][-1].loc)[0]:
            fields[-1].append(item)
        else:
            fields.append([item])
    return tuple(_problem(items, record) for items in fields)


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


def format_value(value: object) -> str | None:
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


def safe_name(name: str) -> str:
    """Return a given name for a message: on one line, and shortened."""
    return _on_one_line(name[:_SHOWN_NAME_CHARACTERS])


def _on_one_line(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)


class _Item(BaseModel):
    """An item of `ValidationError.errors()`."""

    model_config = ConfigDict(defer_build=True)
    type: str
    loc: tuple[str | int, ...]
    msg: str
    input: object = None
    ctx: dict[str, object] = Field(default_factory=dict)


_items = TypeAdapter(list[_Item], config=ConfigDict(defer_build=True))
_WHOLE, _NUMBER, _TRUTH, _BLOCK = "a valid integer", "a valid number", "true or false", "a block of fields"
_EXPECTED = {
    **{"int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE},
    **{"float_type": _NUMBER, "float_parsing": _NUMBER, "bool_type": _TRUTH, "bool_parsing": _TRUTH},
    **{"string_type": "text", "tuple_type": "a list", "dict_type": _BLOCK, "model_type": _BLOCK},
    "literal_error": "{expected}",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "finite_number": "a finite number",
}
"""The rule that a value breaks, by the type of pydantic's error; the braces take values of the error's context."""


def _problem(items: Sequence[_Item], record: Schema) -> FieldProblem:
    """Return the problem of one field; several items are those of the members of a union."""
    item = items[-1]
    if item.type == "extra_forbidden":
        return _unknown_field(item, record)
    path, schema = record.locate(item.loc)
    if item.type.startswith("union_tag_") and (tag := schema.tag):
        return _wrong_tag(item, f"{path}.{tag}", schema)
    if item.type == "missing":
        return FieldProblem.of(path, " is required", allowed=schema.words())
    message = " or ".join([_message(items[0]), *(_message(one, "") for one in items[1:])])
    if not path:
        return FieldProblem(path="", message=message)
    known = {"requirement": str(item.ctx.get("allowed")), "value_error": message}
    value = None if any(member.is_secret for member in schema.members) else format_value(item.input)
    if value is not None:
        message = _with_given(message, value, item)
    return FieldProblem.of(path, f" {message}", value=value, allowed=known.get(item.type) or schema.words())


def _message(item: _Item, must_be: str = "must be ") -> str:
    """Return what is wrong with a value, without the name of its field."""
    expected, context = _EXPECTED.get(item.type), {name: _whole(value) for name, value in item.ctx.items()}
    match item.type:
        case "value_error":
            return str(context["error"])
        case "requirement":
            return f"{context['must']} {context['allowed']}"
        case "too_short":
            return f"must have at least {_limit(context['min_length'], 'item')}, not {context['actual_length']}"
        case "too_long":
            return f"must have at most {_limit(context['max_length'], 'item')}, not {context['actual_length']}"
        case "string_too_short":
            return f"must have at least {_limit(context['min_length'], 'character')}"
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_pattern_mismatch":
            return _pattern_message(str(context["pattern"]))
        case "json_invalid":
            return f"invalid JSON: {context['error']}"
        case _:
            return f"{must_be}{item.msg if expected is None else expected.format_map(context)}"


def _pattern_message(pattern: str) -> str:
    """Return what a text must be; that of a name in words."""
    if (name := _NAME.fullmatch(pattern)) is None:
        return f"must match pattern '{pattern}'"
    signs, length = " ".join(name["signs"]), int(name["more"]) + 1
    return (
        f"must begin with a small letter (a to z) or a digit and go on with these or {signs}, at most {length} in all"
    )


def _limit(number: object, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wrong_tag(item: _Item, path: str, schema: Schema) -> FieldProblem:
    """Return the problem of the field that selects the member of a union."""
    tag = schema.tag
    given: object = item.input
    given = given.get(tag) if isinstance(given, dict) else None
    choices = sorted(repr(choice) for member in schema.members for choice in member.choices_of(tag))
    allowed = f"one of {', '.join(choices)}"
    if given is None:
        return FieldProblem.of(path, " is required", allowed=allowed)
    value = format_value(given)
    message = f" must be {allowed}" if value is None else f" must be {allowed}, you gave {value}"
    return FieldProblem.of(path, message, value=value, allowed=allowed)


def _unknown_field(item: _Item, record: Schema) -> FieldProblem:
    parent, block = record.locate(item.loc[:-1])
    name = safe_name(str(item.loc[-1]))
    fields = dict(record.fields())
    elsewhere = [other for other in fields if other.endswith(f".{name}")]
    near = did_you_mean(name, elsewhere or block.names) or did_you_mean(name, list(fields))
    holds_secrets = any(member.is_secret for field in fields.values() for member in field.members)
    return FieldProblem.of(
        f"{parent}.{name}" if parent else name,
        near,
        "unknown field ",
        value=None if holds_secrets else format_value(item.input),  # it may be a secret under a wrong name
        allowed=f"one of {', '.join(block.names)}",
    )


def _with_given(message: str, value: str, item: _Item) -> str:
    """Return a message with the given value, and with a hint where YAML reads a value as another type."""
    if item.type == "bool_type" and item.input in ("yes", "no", "on", "off"):
        return f"{message}, you gave {value} (yes, no, on and off are words here)"
    if item.type == "string_type" and isinstance(item.input, int | float):
        return f"{message}, you gave {value} (in quotes it would be text)"
    return f"{message}, you gave {value}"


def block(fields: Mapping[str, object], name: str) -> dict[str, object]:
    """Return the block of that name, or an empty one."""
    inner = fields.get(name)
    return {str(key): value for key, value in inner.items()} if isinstance(inner, Mapping) else {}


def value_at(fields: Mapping[str, object], path: str) -> object:
    """Return the value at a path, or None."""
    value: object = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def has_path(fields: Mapping[str, object], path: str) -> bool:
    """Return True if there is a value at a path, or a plain value in place of a block above it."""
    value: object = fields
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return True
        if name not in value:
            return False
        value = value[name]
    return True


def set_path(fields: dict[str, object], path: str, value: object) -> None:
    """Set the value at a path; creates the blocks above it."""
    *blocks, name = path.split(".")
    for outer in blocks:
        fields[outer] = fields = block(fields, outer)
    fields[name] = value


def merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Merge two dictionaries, block by block; values of the second one win."""
    together = dict(under)
    for name, value in over.items():
        both_blocks = isinstance(value, Mapping) and isinstance(together.get(name), Mapping)
        together[name] = merged(block(under, name), block(over, name)) if both_blocks else value
    return together
