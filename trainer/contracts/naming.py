"""The fields of requests that name texts, runs and other things, and the names in them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias, TypeGuard, get_args, get_type_hints

from trainer.contracts.base import Frozen, Names
from trainer.contracts.parameters import Query

Inputs: TypeAlias = Frozen | Query
"""A body, or the parameters of a path or a query."""


class NamingField(NamedTuple):
    """A field, and what its type says of names."""

    kinds: frozenset[Names]
    """The things that its texts name; empty for other fields."""
    records: tuple[type[Frozen], ...]
    """The records in it."""


_FIELDS: dict[type[Inputs], Mapping[str, NamingField]] = {}


def named(record: object, kind: Names, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each name of a kind in a record with the path of its field; lists have no numbers in paths."""
    if isinstance(record, Frozen | Query):
        for name, field in naming_fields(type(record)).items():
            if kind in field.kinds or field.records:
                value: object = getattr(record, name)
                yield from _names(value, kind, f"{path}{name}", is_marked=kind in field.kinds)


def _names(value: object, kind: Names, path: str, *, is_marked: bool) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            if is_marked:
                yield path, value
        case Mapping():
            for key, one in value.items():
                yield from _names(one, kind, f"{path}.{key}", is_marked=is_marked)
        case tuple() | list():
            for one in value:
                yield from _names(one, kind, path, is_marked=is_marked)
        case _:
            yield from named(value, kind, f"{path}.")


def naming_fields(record: type[Inputs]) -> Mapping[str, NamingField]:
    """Return what the types of a record's fields say of names."""
    if record not in _FIELDS:
        hints: Mapping[str, object] = get_type_hints(record, include_extras=True)
        _FIELDS[record] = {name: _naming_field(hints[name]) for name in record.model_fields}
    return _FIELDS[record]


def _naming_field(hint: object) -> NamingField:
    kinds, records, parts = set[Names](), list[type[Frozen]](), [hint]
    while parts:
        part = parts.pop()
        if isinstance(part, Names):
            kinds.add(part)
        elif _is_record(part):
            records.append(part)
        else:
            inner: tuple[object, ...] = get_args(part)
            parts += inner
    return NamingField(frozenset(kinds), tuple(records))


def _is_record(part: object) -> TypeGuard[type[Frozen]]:
    bases: tuple[object, ...] = getattr(part, "__mro__", ())
    return Frozen in bases
