"""Rules between the fields of a record, in its JSON schema."""

from collections.abc import Callable

from pydantic import BaseModel
from pydantic.config import JsonDict

from trainer.contracts.base import describe_fields


def json_schema_rule(*rules: JsonDict) -> Callable[[JsonDict, type[BaseModel]], None]:
    """Return a `json_schema_extra` that adds the docstrings of a record's fields, and rules between its fields."""

    def describe(schema: JsonDict, record: type[BaseModel]) -> None:
        describe_fields(schema, record)
        schema["allOf"] = list(rules)

    return describe


def exactly_one(first: str, second: str) -> JsonDict:
    """Return the rule that a record has exactly one of two texts."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in (first, second)]}


def not_both(first: str, second: str) -> JsonDict:
    """Return the rule that a record has at most one of two fields."""
    return {"anyOf": [{"properties": {name: {"type": "null"}}} for name in (first, second)]}


def requires_field(field: str, without: JsonDict, other: str, value: JsonDict) -> JsonDict:
    """Return the rule that a field has a value `without` need, or another field has another value."""
    return {"anyOf": [{"properties": {field: without}}, {"required": [other], "properties": {other: value}}]}
