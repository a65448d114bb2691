"""JSON as Discord writes it: decoding, narrowing and timestamps."""

import json
from datetime import UTC, datetime
from typing import TypeAlias

from pydantic import JsonValue

Json: TypeAlias = dict[str, JsonValue]


def decode(data: bytes | str) -> JsonValue:
    value: JsonValue = json.loads(data)
    return value


def encode(value: JsonValue) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def mapping(value: JsonValue) -> Json:
    return value if isinstance(value, dict) else {}


def rows(value: JsonValue) -> list[Json]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def items(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def number(value: JsonValue, default: int = 0) -> int:
    """Return an integer or a numeric string (snowflakes are either) as an integer."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else default


def without_nulls(value: JsonValue) -> JsonValue:
    """Return a copy without the keys whose value is null, at every level."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def now_iso() -> str:
    return datetime.now(UTC).isoformat()
