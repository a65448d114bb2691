"""List of the fields of a train request for `mt train --help`, made from the record itself."""

from pydantic_core import to_json

from trainer.config.request_options import TRAIN_OPTIONS
from trainer.config.schema import Schema, schema_of
from trainer.contracts.runs import TrainRequest

_HEAD = """\
Fields of an experiment file and of --set KEY=VALUE, with type, range and default (a model family has its own defaults
for some: `mt validate --model MODEL --corpus NAME` shows the values of a request):
"""


def describe_request() -> str:
    """List every field of a train request with its option, type, range, default and meaning."""
    options = {option.field: f", --{name.replace('_', '-')}" for name, option in TRAIN_OPTIONS.items()}
    # by path: the first block's schema, and the types in all blocks, such as those of several tokenizers
    fields: dict[str, tuple[Schema, dict[str, None]]] = {}
    for path, field in schema_of(TrainRequest).fields():
        for kind in field.members:
            if kind.type != "null" and not kind.properties:
                words = kind.words().removeprefix("an ").removeprefix("a ")
                fields.setdefault(path, (field, {}))[1][words] = None
    lines = [_HEAD]
    for path, (field, types) in fields.items():
        end = "; required" if path == "corpus" else ""
        if field.default is not None:
            end = f"; default {to_json(field.default).decode()}"
        lines.append(f"  {path}{options.get(path, '')}: {' or '.join(types)}{end}")
        if field.description:
            lines.append(f"      {field.description}")
    return "\n".join(lines)
