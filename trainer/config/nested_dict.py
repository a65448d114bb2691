"""Nested dictionaries of fields, addressed by paths with dots."""

from collections.abc import Mapping


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
