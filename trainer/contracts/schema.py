"""Fields of a record type and their allowed values in words."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel, Field

Number = int | float


class Schema(BaseModel):
    """A JSON schema, as far as used here."""

    ref: str = Field("", alias="$ref")
    definitions: "dict[str, Schema]" = Field(default_factory=dict, alias="$defs")
    type: str = ""
    enum: tuple[bool | Number | str | None, ...] = ()
    const: bool | Number | str | None = None
    any_of: "tuple[Schema, ...]" = Field((), alias="anyOf")
    one_of: "tuple[Schema, ...]" = Field((), alias="oneOf")
    discriminator: "Discriminator | None" = None
    properties: "dict[str, Schema]" = Field(default_factory=dict)
    any_property: "Schema | bool" = Field(False, alias="additionalProperties")
    items: "Schema | None" = None
    first_items: "tuple[Schema, ...]" = Field((), alias="prefixItems")
    minimum: Number | None = None
    above: Number | None = Field(None, alias="exclusiveMinimum")
    maximum: Number | None = None
    below: Number | None = Field(None, alias="exclusiveMaximum")
    min_length: int = Field(0, alias="minLength")
    max_length: int | None = Field(None, alias="maxLength")
    min_items: int = Field(0, alias="minItems")
    max_items: int | None = Field(None, alias="maxItems")
    pattern: str = ""
    default: object = None
    description: str = ""
    write_only: bool = Field(False, alias="writeOnly")

    @property
    def choices(self) -> tuple[bool | Number | str | None, ...]:
        return self.enum or ((self.const,) if "const" in self.model_fields_set else ())


class Discriminator(BaseModel):
    """The field that selects the member of a union, and the member of each value."""

    name: str = Field(alias="propertyName")
    mapping: dict[str, str]


class Place(NamedTuple):
    """A place in a record: its path, with dots that lead into blocks, and its schema."""

    path: str
    schema: Schema


class RecordSchema:
    """The schema of a record type."""

    def __init__(self, model: type[BaseModel]) -> None:
        described: object = model.model_json_schema()
        self._root = Schema.model_validate(described)

    def locate(self, parts: Sequence[str | int]) -> Place:
        """Return the place of these parts; parts that name a member of a union are not in the path."""
        path: list[str] = []
        schema = self._root
        for part in parts:
            inside = self._inside(schema, part)
            if inside is not None:
                path.append(str(part))
                schema = inside
            elif tag := self.tag(schema):
                schema = self._resolved(tag.mapping.get(str(part), ""), schema)
        return Place(".".join(path), schema)

    def members(self, schema: Schema) -> Iterator[Schema]:
        """Yield the members of a union, or the schema itself."""
        schema = self._resolved(schema.ref, schema)
        union = schema.any_of + schema.one_of
        if not union:
            yield schema
        for member in union:
            yield from self.members(member)

    def tag(self, schema: Schema) -> Discriminator | None:
        """Return the discriminator of a union, if it has one."""
        schema = self._resolved(schema.ref, schema)
        return schema.discriminator or next(filter(None, map(self.tag, schema.any_of)), None)

    def names(self, schema: Schema | None = None) -> list[str]:
        """Return the names of all fields of a block; without a block, the paths of all fields of the record."""
        if schema is not None:
            return [name for member in self.members(schema) for name in member.properties]
        return list(self._paths(self._root, ""))

    def is_secret(self, schema: Schema) -> bool:
        return any(member.write_only for member in self.members(schema))

    @property
    def holds_secrets(self) -> bool:
        blocks = (self._root, *self._root.definitions.values())
        return any(self.is_secret(inner) for block in blocks for inner in block.properties.values())

    def words(self, schema: Schema) -> str:
        """Describe the allowed values."""
        said: dict[str, None] = dict.fromkeys(self._words(member) for member in self.members(schema))
        return " or ".join(said)

    def _inside(self, schema: Schema, part: str | int) -> Schema | None:
        for member in self.members(schema):
            if isinstance(part, int):
                found = member.first_items[part] if part < len(member.first_items) else member.items
            else:
                other = member.any_property
                found = member.properties.get(part) or (other if isinstance(other, Schema) else None)
            if found is not None:
                return found
        return None

    def _resolved(self, reference: str, otherwise: Schema) -> Schema:
        return self._root.definitions.get(reference.rsplit("/", 1)[-1], otherwise)

    def _paths(self, schema: Schema, before: str) -> Iterator[str]:
        for member in self.members(schema):
            for name, inner in member.properties.items():
                yield before + name
                yield from self._paths(inner, f"{before}{name}.")

    def _words(self, schema: Schema) -> str:
        if schema.choices:
            shown = [str(choice).lower() if isinstance(choice, bool) else repr(choice) for choice in schema.choices]
            return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"
        match schema.type:
            case "integer":
                return f"an integer{_bounds(schema)}"
            case "number":
                return f"a number{_bounds(schema)}"
            case "boolean":
                return "true or false"
            case "string":
                size = _size(schema.min_length, schema.max_length, "characters")
                return f"text{size}" + (f" that matches {schema.pattern}" if schema.pattern else "")
            case "array" if schema.max_items == 0:
                return "[]"
            case "array":
                item = schema.items or (schema.first_items[0] if schema.first_items else None)
                size = _size(schema.min_items, schema.max_items, "items")
                return f"a list{size}" + (f", each {self.words(item)}" if item else "")
            case "object":
                names = ", ".join(schema.properties)
                return f"a block with {names}" if names else "a block"
            case other:
                return other


def _bounds(schema: Schema) -> str:
    bounds: tuple[tuple[str, Number | None], ...] = (
        ("≥", schema.minimum),
        (">", schema.above),
        ("≤", schema.maximum),
        ("<", schema.below),
    )
    said = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
    return f" {' and '.join(said)}" if said else ""


def _size(least: int, most: int | None, unit: str) -> str:
    if most is None:
        return f" of at least {least} {unit}" if least else ""
    if least == most:
        return f" of {most} {unit}"
    return f" of {least} to {most} {unit}" if least else f" of at most {most} {unit}"
