"""Earlier forms of stored records, brought to today's form as they are read. The files stay as they are.

A stored record has a `schema_version`; one without this field has version 1. Whoever changes a form raises its version,
adds the changes to EARLIER, and adds a folder of the version before to `tests/fixtures/stored`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

Record = TypeVar("Record", bound=BaseModel)
Fields = dict[str, JsonValue]


class Change(NamedTuple):
    """A change of the blocks of a record at a path; `runs.controls` are the blocks of all runs."""

    path: str
    apply: Callable[[Fields, Fields], None]
    """Changes a block, given the complete record too."""


class OtherForm(ValueError):
    """A record of a form that this program does not know; the message says which."""


def _without(*names: str) -> Callable[[Fields, Fields], None]:
    """Remove fields that today's form has no longer."""

    def remove(block: Fields, _: Fields) -> None:
        for name in names:
            block.pop(name, None)

    return remove


def _without_null(*names: str) -> Callable[[Fields, Fields], None]:
    """Remove fields that were null where today's form has a default."""

    def remove(block: Fields, _: Fields) -> None:
        for name in names:
            if block.get(name, ...) is None:
                del block[name]

    return remove


def auto_rows(model_family: str, *, on_cuda: bool) -> int:
    """Return the rows per batch that a worker of version 0.1.0 chose for `auto`."""
    return {"char_lstm": 64, "gpt2": 32}.get(model_family, 16) if on_cuda else 8


def _with_rows(effective: Fields, record: Fields) -> None:
    """Replace the batch size `auto` by the rows that the worker took."""
    if effective.get("batch_size") == "auto":
        environment = record.get("environment")  # that of a worker, in the manifest of a completed run
        device = environment.get("device") if isinstance(environment, dict) else effective.get("device")
        rows = auto_rows(str(effective.get("model_family")), on_cuda=str(device).startswith("cuda"))
        effective |= {"batch_size": rows, "has_auto_batch": True}


def _without_search(effective: Fields, _: Fields) -> None:
    """Drop the search of settings within a run, of whose fields the request hash was made."""
    if effective.pop("search", None) is not None:
        effective["has_earlier_hash"] = True
    effective.pop("searched", None)


def _with_templates(block: Fields, _: Fields) -> None:
    """Make notes, which were sentences, templates without a translation."""
    notes = block.get("notes")
    if isinstance(notes, list):
        block["notes"] = [
            {"template": "{text}", "values": {"text": one}} if isinstance(one, str) else one for one in notes
        ]


def _with_printable_tags(options: Fields, _: Fields) -> None:
    """Leave out what tags must not have: they could be empty, and have characters that are not printable."""
    tags = options.get("tags")
    if isinstance(tags, list):
        texts = ("".join(filter(str.isprintable, str(tag))) for tag in tags)
        options["tags"] = [text for text in texts if text]


def _with_total_line(evaluation: Fields, _: Fields) -> None:
    """Give an evaluation without losses of lines one line, from which no interval follows."""
    loss, tokens, characters = (evaluation.get(name) for name in ("loss", "n_tokens", "n_chars"))
    if evaluation.get("lines") is None and isinstance(loss, float) and isinstance(tokens, int):
        evaluation["lines"] = {"nats": [loss * tokens], "tokens": [tokens], "chars": [characters]}


def _with_empty_lines(summary: Fields, _: Fields) -> None:
    """Give the summary of an evaluation without losses of lines none."""
    if summary.get("lines") is None:
        summary["lines"] = {"nats": [], "tokens": [], "chars": []}


_OF_RUN = (
    Change("effective", _with_rows),
    Change("effective", _without_search),
    Change("effective", _with_printable_tags),
    Change("request", _without("search")),
    Change("request", _with_printable_tags),
)
_OF_SPLIT = _without_null("unknown_tokens", "unknown_chars", "bytes")

EARLIER: Mapping[str, tuple[tuple[Change, ...], ...]] = {
    "RunRecord": ((*_OF_RUN, Change("cost", _without("search_steps"))), (), ()),
    "RunManifest": (
        (
            *_OF_RUN,
            Change("", _without("search")),
            *(Change(f"data.{split}", _OF_SPLIT) for split in ("train", "validation", "test")),
            Change("eval", _with_empty_lines),
        ),
        (),
        (),
    ),
    "EvalMetrics": ((Change("", _with_total_line), Change("", _with_templates)), (), ()),
    "TrainingState": ((Change("", _without_null("seen")),), ()),
    "StudyRecord": ((), ()),
    "StudyResult": ((), ()),
    "BatteryRecord": ((Change("batteries", _with_templates),), (), ()),
    "ItemScores": ((),),
    "Annotations": ((),),
    "ReadingRecord": ((),),
    "ExperimentRecord": ((),),
    "ExperimentResult": ((), ()),
    "ReadingFit": ((),),
    "ReadingResult": ((),),
    "Report": ((),),
    "BatteryManifest": ((Change("batteries", _with_templates),), ()),
    "BatterySummary": (
        (
            Change("", _with_templates),
            Change("batteries", _with_templates),
            Change("runs.controls", _without("swapped", "n_not_turned")),
        ),
        (),
    ),
    "Development": ((Change("", _with_templates),),),
    "trainer.metrics.config.v1": ((Change("", _without("search")),),),
}
"""The changes of stored forms by the names of their classes, or by the types of events.

The first tuple of a form leads from version 1 to version 2. That of most forms holds all changes since commit 30549b9:
all is 0.1.0. A tuple without changes is of a version that has added fields.
"""


class _Problem(BaseModel):
    loc: tuple[int | str, ...]
    msg: str


_fields: TypeAdapter[Fields] = TypeAdapter(Fields)
_problems: TypeAdapter[list[_Problem]] = TypeAdapter(list[_Problem])


def version_of(model: type[BaseModel]) -> int:
    """Return the version of a stored form that this program writes."""
    field = model.model_fields.get("schema_version")
    if field is None:
        return 1
    version: int = field.default
    return version


def read_stored(model: type[Record], data: bytes) -> Record:
    """Return a stored record from its JSON, in today's form or an earlier one.

    Raises OtherForm for a record of another form, and ValidationError for what is no JSON object.
    """
    if model.__name__ not in EARLIER:
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            fields = _fields.validate_json(data)
            raise _other_form(model, fields.get("schema_version", 1), error) from error
    fields = _fields.validate_json(data)
    version = fields.get("schema_version", 1)
    try:
        return model.model_validate_json(_upgraded(model.__name__, fields, version) or data)
    except ValidationError as error:
        raise _other_form(model, version, error) from error


def upgraded_event(line: bytes) -> bytes | None:
    """Return the line of an event of an earlier version in today's form; None for another line."""
    try:
        fields = _fields.validate_json(line)
    except ValidationError:
        return None
    return _upgraded(str(fields.get("type")), fields, 1)


def _upgraded(name: str, fields: Fields, version: JsonValue) -> bytes | None:
    """Return the JSON of a record in today's form; None for one that has it, and for one of an unknown version."""
    steps = EARLIER.get(name, ())
    if not isinstance(version, int) or not 1 <= version <= len(steps):
        return None
    for change in (change for step in steps[version - 1 :] for change in step):
        for block in _blocks(fields, change.path):
            change.apply(block, fields)
    if "schema_version" in fields:
        fields["schema_version"] = len(steps) + 1
    return to_json(fields)


def _blocks(value: JsonValue, path: str) -> Iterator[Fields]:
    """Yield the blocks at a path, of a list those of all items."""
    if isinstance(value, list):
        for item in value:
            yield from _blocks(item, path)
    elif isinstance(value, dict):
        name, _, rest = path.partition(".")
        if name:
            yield from _blocks(value.get(name), rest)
        else:
            yield value


def _other_form(model: type[BaseModel], written: JsonValue, error: ValidationError) -> OtherForm:
    known = version_of(model)
    if isinstance(written, int) and written > known:
        return OtherForm(f"it has schema_version {written}, and this program reads up to {known}: update the program")
    [first, *_] = _problems.validate_json(error.json(include_input=False, include_context=False, include_url=False))
    path = ".".join(map(str, first.loc))
    return OtherForm(f"`{path}` is not as in schema_version {written}: {first.msg}")
