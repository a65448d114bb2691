"""List of the fields of a train request for `mt train --help`, made from the record itself."""

from collections.abc import Iterator
from typing import NamedTuple

from pydantic_core import to_json

from trainer.config.request_options import TRAIN_OPTIONS
from trainer.contracts.runs import TrainRequest
from trainer.contracts.schema import RecordSchema, Schema

_HEAD = """\
Fields of an experiment file and of --set KEY=VALUE, with type, range and default (a model family has its own defaults
for some: `mt validate --model MODEL --corpus NAME` shows the values of a request):
"""


class _Field(NamedTuple):
    schema: Schema
    """Of the first block that has this field."""
    types: dict[str, None]
    """Of all blocks that have it, such as those of several tokenizers."""


def describe_request() -> str:
    """List every field of a train request with its option, type, range, default and meaning."""
    record = RecordSchema(TrainRequest)
    options = {option.field: f", --{name.replace('_', '-')}" for name, option in TRAIN_OPTIONS.items()}
    fields: dict[str, _Field] = {}
    for path, field, kind in _fields(record, record.locate(()).schema, ""):
        fields.setdefault(path, _Field(field, {})).types[kind] = None
    lines = [_HEAD]
    for path, (field, types) in fields.items():
        end = "; required" if path == "corpus" else ""
        if field.default is not None:
            end = f"; default {to_json(field.default).decode()}"
        lines.append(f"  {path}{options.get(path, '')}: {' or '.join(types)}{end}")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join(lines)


def _fields(record: RecordSchema, block: Schema, before: str) -> Iterator[tuple[str, Schema, str]]:
    """Yield the path, the schema and a type of every field that is not a block; dots in a path lead into blocks."""
    for member in record.members(block):
        for name, field in member.properties.items():
            for kind in record.members(field):
                if kind.type != "null" and not kind.properties:
                    yield f"{before}{name}", field, record.words(kind).removeprefix("an ").removeprefix("a ")
            yield from _fields(record, field, f"{before}{name}.")
