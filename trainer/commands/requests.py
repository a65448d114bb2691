"""Assignments of the command line on their way into a request."""

from pydantic import BaseModel

from trainer.config.nested_dict import set_path
from trainer.config.validation import safe_name, takes_any_text
from trainer.config.yaml import parse_yaml
from trainer.contracts.errors import AppError, ErrorCode


def assign(record: type[BaseModel], fields: dict[str, object], assignment: str) -> None:
    """Put KEY=VALUE into the fields of a record; dots in KEY lead into blocks, VALUE is YAML or, for a name, text."""
    key, equals, text = assignment.partition("=")
    if not key or not equals:
        raise AppError(ErrorCode.INVALID_INPUT, f"`--set {safe_name(assignment)}` must have the form KEY=VALUE.")
    is_plain = takes_any_text(record, key) and text not in ("null", "~") and text[:1] not in ("'", '"')
    set_path(fields, key, text if is_plain else parse_yaml(text, f"--set {safe_name(key)}"))
