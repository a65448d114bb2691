"""Rules between the fields of a record: in its JSON schema, and as errors."""

from collections.abc import Callable
from typing import Literal, TypeVar

from pydantic import AfterValidator, BaseModel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from trainer.contracts.base import describe_fields

CONFLICT: Literal["conflict"] = "conflict"
"""The type of the validation error that `conflict` returns."""
T = TypeVar("T")


def conflict(message: str) -> PydanticCustomError:
    """Return the error of values that are right by themselves, but not together; HTTP answers with 409.

    It is for rules that a JSON schema cannot state.
    """
    context: dict[str, object] = {"message": message}
    return PydanticCustomError(CONFLICT, "{message}", context)


def fits_together(is_right: Callable[[T], object], message: str) -> AfterValidator:
    """Return a validator that raises `conflict` for the values for which the test is false."""

    def check(value: T) -> T:
        if not is_right(value):
            raise conflict(message)
        return value

    return AfterValidator(check)


def described(*rules: JsonDict) -> Callable[[JsonDict, type[BaseModel]], None]:
    """Return a `json_schema_extra` that adds the docstrings of a record's fields, and rules between its fields."""

    def describe(schema: JsonDict, record: type[BaseModel]) -> None:
        describe_fields(schema, record)
        schema["allOf"] = list(rules)

    return describe


def one_of_both(first: str, second: str) -> JsonDict:
    """Return the rule that a record has exactly one of two texts."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": "string"}}} for name in (first, second)]}


def not_both(first: str, second: str) -> JsonDict:
    """Return the rule that a record has at most one of two fields."""
    return {"anyOf": [{"properties": {name: {"type": "null"}}} for name in (first, second)]}


def needs(field: str, without: JsonDict, other: str, value: JsonDict) -> JsonDict:
    """Return the rule that a field has a value `without` need, or another field has another value."""
    return {"anyOf": [{"properties": {field: without}}, {"required": [other], "properties": {other: value}}]}
