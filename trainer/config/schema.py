"""Fields of a record type and their allowed values in words."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, Field

Number = int | float
Choice = bool | Number | str | None


class Schema(BaseModel):
    """The keywords of a JSON schema that describe a request; `schema_of` resolves references."""

    type: str | tuple[str, ...] = ""
    ref: str = Field("", alias="$ref")
    enum: tuple[Choice, ...] = ()
    const: Choice = None
    any_of: "tuple[Schema, ...]" = Field((), alias="anyOf")
    one_of: "tuple[Schema, ...]" = Field((), alias="oneOf")
    discriminator: dict[str, object] = Field(default_factory=dict)
    properties: "dict[str, Schema]" = Field(default_factory=dict)
    required: tuple[str, ...] = ()
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
    is_secret: bool = Field(False, alias="writeOnly")

    @property
    def choices(self) -> tuple[Choice, ...]:
        return self.enum or ((self.const,) if "const" in self.model_fields_set else ())

    def choices_of(self, field: str) -> tuple[Choice, ...]:
        """Return the choices of a field; empty if the block has no such field."""
        return self.properties[field].choices if field in self.properties else ()

    @property
    def members(self) -> "list[Schema]":
        """The members of a union, or the schema itself."""
        return [inner for member in self.any_of + self.one_of for inner in member.members] or [self]

    @property
    def tag(self) -> str:
        """The name of the field that selects the member of a union, or ''."""
        own = self.discriminator.get("propertyName", "")
        return str(own) or next((member.tag for member in self.any_of if member.tag), "")

    @property
    def names(self) -> list[str]:
        """The names of all fields of a block."""
        return [name for member in self.members for name in member.properties]

    def fields(self, before: str = "") -> "Iterator[tuple[str, Schema]]":
        """Yield the path and the schema of every field; dots in a path lead into blocks."""
        for member in self.members:
            for name, field in member.properties.items():
                yield before + name, field
                yield from field.fields(f"{before}{name}.")

    def locate(self, parts: Sequence[str | int]) -> "tuple[str, Schema]":
        """Return the path of these parts and its schema; parts that name a member of a union are not in the path."""
        path: list[str] = []
        schema = self
        for part in parts:
            inside = next(filter(None, (member._inside(part) for member in schema.members)), None)
            if inside is not None:
                path.append(str(part))
                schema = inside
            elif tag := schema.tag:
                selected = (member for member in schema.members if part in member.choices_of(tag))
                schema = next(selected, schema)
        return ".".join(path), schema

    def _inside(self, part: str | int) -> "Schema | None":
        if isinstance(part, int):
            return self.first_items[part] if part < len(self.first_items) else self.items
        return self.properties.get(part) or (self.any_property if isinstance(self.any_property, Schema) else None)

    def words(self) -> str:
        """Describe the allowed values."""
        words: dict[str, None] = dict.fromkeys(member._words() for member in self.members)
        return " or ".join(words)

    def _words(self) -> str:
        if self.choices:
            shown = [str(choice).lower() if isinstance(choice, bool) else repr(choice) for choice in self.choices]
            return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"
        if self.ref:
            name = self.ref.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        match self.type:
            case "integer":
                return f"an integer{self._bounds()}"
            case "number":
                return f"a number{self._bounds()}"
            case "boolean":
                return "true or false"
            case "string":
                size = _size(self.min_length, self.max_length, "characters")
                return f"text{size}" + (f" that matches {self.pattern}" if self.pattern else "")
            case "array" if self.max_items == 0:
                return "[]"
            case "array":
                item = self.items or next(iter(self.first_items), None)
                size = _size(self.min_items, self.max_items, "items")
                return f"a list{size}" + (f", each {item.words()}" if item else "")
            case "object":
                return f"a block with {', '.join(self.properties)}" if self.properties else "a block"
            case other:
                return other if isinstance(other, str) else " or ".join(other)

    def _bounds(self) -> str:
        bounds = {"≥": self.minimum, ">": self.above, "≤": self.maximum, "<": self.below}
        limits = [f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None]
        return f" {' and '.join(limits)}" if limits else ""


_schemas: dict[type[BaseModel], Schema] = {}
"""Schemas by record type: pydantic takes 20 ms to describe a train request."""


def schema_of(model: type[BaseModel]) -> Schema:
    """Return the schema of a record type."""
    if model not in _schemas:
        described: dict[str, dict[str, dict[str, object]]] = model.model_json_schema()
        _schemas[model] = Schema.model_validate(_inlined(described, described.get("$defs", {})))
    return _schemas[model]


def _inlined(value: object, definitions: Mapping[str, dict[str, object]]) -> object:
    """Replace each reference of a JSON schema by its definition."""
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    given: dict[str, object] = {str(name): item for name, item in value.items()}
    fields = definitions.get(str(given.pop("$ref", "")).rpartition("/")[2], {}) | given
    return {name: _inlined(item, definitions) for name, item in fields.items()}


def _size(least: int, most: int | None, unit: str) -> str:
    if most is None:
        return f" of at least {least} {unit}" if least else ""
    if least == most:
        return f" of {most} {unit}"
    return f" of {least} to {most} {unit}" if least else f" of at most {most} {unit}"
