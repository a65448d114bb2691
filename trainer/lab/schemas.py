"""JSON schemas of the inputs and answers of operations, as programs read them."""

from collections.abc import Iterator

from pydantic import BaseModel

Json = dict[str, object]

_ONLY_HERE = "x-"
"""Prefix of JSON schema keywords of the records that only descriptions for programs have, and change no message."""


def for_programs(schema: Json) -> Json:
    """Return a schema with the keywords that only programs read, and with lists in place of tuples."""
    described: Json = {name.removeprefix(_ONLY_HERE): _inside(value) for name, value in schema.items()}
    positions: object = described.pop("prefixItems", None)
    if isinstance(positions, list):  # several tools do not know this keyword
        found: list[object] = positions
        kinds = [kind for number, kind in enumerate(found) if kind not in found[:number]]
        described["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return described


def _inside(value: object) -> object:
    if isinstance(value, list):
        items: list[object] = value
        return [_inside(item) for item in items]
    if isinstance(value, dict):
        fields: Json = value
        return for_programs(fields)
    return value


def parameters(model: type[BaseModel], place: str) -> Iterator[Json]:
    """Yield the parameters of a path or a query, as OpenAPI describes them."""
    described: dict[str, dict[str, Json]] = model.model_json_schema()
    for name, schema in described.get("properties", {}).items():
        about = {key: value for key, value in schema.items() if key not in ("title", "description")}
        is_required = place == "path" or model.model_fields[name].is_required()
        parameter: Json = {"name": name, "in": place, "required": is_required, "schema": _without_null(about)}
        if "description" in schema:
            parameter["description"] = schema["description"]
        yield parameter


def _without_null(schema: Json) -> Json:
    """Return the schema of a parameter that may be left out: a query has no null."""
    members: object = schema.get("anyOf")
    if not isinstance(members, list):
        return schema
    found: list[Json] = members
    [member] = [one for one in found if one != {"type": "null"}]
    return member
