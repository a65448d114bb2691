"""Fields by name before they are checked: blocks in blocks, and paths in which dots lead into them."""

from collections.abc import Mapping


def block(fields: Mapping[str, object], name: str) -> dict[str, object]:
    """The block of that name; an empty one where there is none."""
    inner = fields.get(name)
    return {str(key): value for key, value in inner.items()} if isinstance(inner, Mapping) else {}


def value_at(fields: Mapping[str, object], path: str) -> object:
    """The value at a path; None where there is none."""
    value: object = fields
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def says(fields: Mapping[str, object], path: str) -> bool:
    """Whether the fields say what stands at a path: by a value there, or by one in place of a block above it."""
    value: object = fields
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return True
        if name not in value:
            return False
        value = value[name]
    return True


def put(fields: dict[str, object], path: str, value: object) -> None:
    """Put a value at a path, making the blocks above it."""
    *blocks, name = path.split(".")
    for outer in blocks:
        fields[outer] = fields = block(fields, outer)
    fields[name] = value


def merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """The fields of both; where both have a block, the fields of both blocks."""
    together = dict(under)
    for name, value in over.items():
        both_blocks = isinstance(value, Mapping) and isinstance(together.get(name), Mapping)
        together[name] = merged(block(under, name), block(over, name)) if both_blocks else value
    return together


def difference(fields: Mapping[str, object], others: Mapping[str, object]) -> dict[str, object]:
    """The fields that are not the same among the others."""
    different: dict[str, object] = {}
    for name, value in fields.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if inner := difference(block(fields, name), block(others, name)):
                different[name] = inner
        elif value != other:
            different[name] = value
    return different
