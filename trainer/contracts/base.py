"""Base class and shared field types of all records."""

import ast
import inspect
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from enum import StrEnum, auto
from itertools import pairwise
from threading import Lock
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError


class Names(StrEnum):
    """The thing that a field of a request names, as a part of its type; `trainer/lab/rights.py` has the rights."""

    TEXT = auto()
    """A corpus: by its name, by the hash of its content, or as a path below either."""
    RUN = auto()
    """A run, a checkpoint of it, or a group of runs, which the caller uses."""
    WEIGHTS = auto()
    """A run or checkpoint whose weights the caller gets."""
    TOKENIZER = auto()
    """A tokenizer whose vocabulary the caller gets."""
    JOB = auto()
    """A run or another job, by the kind in the same request or path."""
    BATTERY = auto()
    """A battery of this installation, which is for all."""
    UPLOAD = auto()
    """An upload of the same client, or the content of its file, which it sends."""
    REQUEST = auto()
    """An inference request or a chat of the same person."""
    TRAINING = auto()
    """Fields of train requests, which are asked for as those of one."""


Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
"""A run, tokenizer or request id: safe as a file name, in a Redis key and in a Discord custom id."""
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(@[A-Za-z0-9.:]{1,32})?$")]
"""A run, which stands for its model, or one of its checkpoints: `RUN@1200`, `RUN@best`, `RUN@words:1M`."""
GivenName = Annotated[str, Field(min_length=1, max_length=100)]
"""A name as people type it: an id or its beginning, a label, `last` for the newest, or a checkpoint as `RUN@1200`."""

Count = Annotated[int, Field(gt=0, le=1_000_000_000)]
"""A number of steps, tokens or texts in a request: at most a billion, so that sums cannot overflow."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KindName = Literal[
    "models",
    "tokenizers",
    "experiments",
    "studies",
    "batteries",
    "readings",
    "exports",
    "verifications",
    "corpus_builds",
]
"""The folder of a kind of jobs below the artifacts root, and in the object store."""
RunState = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
JobState = Literal["queued", "running", "completed", "failed"]
WaitReason = Literal["turn", "worker", "gpu", "cpu", "memory", "broken", "queue", "object_store", "disk_space", "disk"]
"""Reasons of waiting: its turn; a worker of any kind, with a GPU, for the CPU, with more memory; the end of the queue's
pause; an answer of the object store; space on the disk; a disk that works."""
StopCause = Literal[
    "crashed", "stalled", "starved", "killed", "not_started", "disk_full", "disk_unwritable", "worker_ended"
]
"""Why an attempt ended before its time; starved: the system killed it, because memory ran out."""
Phase = Literal["measuring", "reading", "training", "evaluating"]
"""Phases of a running job."""


_PARSING = Lock()
"""Held while source is parsed: before 3.11.8 and 3.12.2, Python may fail where two threads do (cpython#106905)."""


class Frozen(BaseModel):
    """An immutable record; refuses unknown fields, infinite numbers, and bool for int."""

    model_config = ConfigDict(
        defer_build=True,  # most commands need few of the records: each is built at its first use
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


_DOCS: dict[type[object], dict[str, str]] = {}
"""The docstrings of the fields of classes that were described."""


def describe_fields(schema: JsonDict, record: type[BaseModel]) -> None:
    """Add the docstrings of a record's fields to its JSON schema, as its `json_schema_extra`.

    pydantic's `use_attribute_docstrings` reads the source at every import, which takes a tenth of a command's start.
    """
    found = schema["properties"]
    properties = found if isinstance(found, dict) else {}
    for base in reversed(record.__mro__[: -len(Frozen.__mro__)]):
        if base not in _DOCS:  # the tools of agents describe many records several times
            _DOCS[base] = dict(_docs(base))
        for name, docstring in _DOCS[base].items():
            field = properties[name]
            properties[name] = {**field, "description": docstring} if isinstance(field, dict) else field


def _docs(record: type[object]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class that are followed by a docstring."""
    with _PARSING:
        [definition] = ast.parse(inspect.getsource(record)).body
    for field, after in pairwise(definition.body if isinstance(definition, ast.ClassDef) else []):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                yield name, inspect.cleandoc(docstring)
            case _:
                pass


def json_schema_rule(*rules: JsonDict) -> Callable[[JsonDict, type[BaseModel]], None]:
    """Return a `json_schema_extra` that adds the docstrings of a record's fields, and rules between its fields."""

    def describe(schema: JsonDict, record: type[BaseModel]) -> None:
        describe_fields(schema, record)
        schema["allOf"] = list(rules)

    return describe


def exactly_one(*names: str) -> JsonDict:
    """Return the rule that a record has exactly one of some texts or lists."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": ["string", "array"]}}} for name in names]}


def not_both(first: str, second: str) -> JsonDict:
    """Return the rule that a record has at most one of two fields."""
    return {"anyOf": [{"properties": {name: {"type": "null"}}} for name in (first, second)]}


def requires_field(field: str, without: JsonDict, other: str, value: JsonDict) -> JsonDict:
    """Return the rule that a field has a value `without` need, or another field has another value."""
    return {"anyOf": [{"properties": {field: without}}, {"required": [other], "properties": {other: value}}]}


class CountOptions(Frozen):
    """An option of requests that also read the training texts of their runs."""

    has_counts: bool | None = None
    """Also read the training text: frequencies, n-grams, and searches for the text of the request. Only owners of the
    runs and admins get these; default: if you may."""

    @property
    def unset_counts(self) -> set[str]:
        """The field, if it is not set: the hash of a request is then that of versions without it."""
        return set() if self.has_counts is not None else {"has_counts"}


class FileRecord(Frozen):
    """A file of an artifact; the path is relative to the artifact."""

    path: str
    bytes: int
    sha256: Sha256


def run_of(name: str) -> str:
    """Return the id of the run in the name of a model."""
    return name.partition("@")[0]


def model_name(run_id: str, step: int | None) -> str:
    """Return the name of a run's model, or of its checkpoint of a step."""
    return run_id if step is None else f"{run_id}@{step}"


T = TypeVar("T")
R = TypeVar("R", bound=BaseModel)


def requires(is_right: Callable[[T], object], allowed: str, must: str = "must be") -> AfterValidator:
    """Return a validator that refuses the values for which the test is false."""

    def check(value: T) -> T:
        if not is_right(value):
            raise requirement(allowed, must)
        return value

    return AfterValidator(check)


def requirement(allowed: str, must: str = "must be") -> PydanticCustomError:
    """Return the error of a value that breaks a rule of our own."""
    context: dict[str, object] = {"must": must, "allowed": allowed}
    return PydanticCustomError("requirement", "{must} {allowed}", context)


def is_ascending(numbers: tuple[int, ...]) -> bool:
    return all(number < later for number, later in pairwise(numbers))


def are_different(values: Collection[object]) -> bool:
    return len({*values}) == len(values)


def changed(record: R, **fields: object) -> R:
    """Return a copy of a record with other values in the given fields. The values are not validated."""
    unknown = fields.keys() - type(record).model_fields.keys()
    if unknown:
        raise TypeError(f"{type(record).__name__} has no field {', '.join(sorted(unknown))}.")
    return record.model_copy(update=fields)


def narrowed(model: type[T], value: object) -> T:
    """Return a value of a class that is known only while the program runs; raises TypeError for another class."""
    if not isinstance(value, model):
        raise TypeError(f"This is a {type(value).__name__}, and no {model.__name__}.")
    return value


Timestamp = AwareDatetime


def now() -> datetime:
    return datetime.now(UTC)


class HttpOrigin(Frozen):
    """The HTTP client that a job comes from."""

    api_key: str | None
    """The name of its API key; None for a server without keys."""
    idempotency: Sha256 | None = None
    """Stands for the Idempotency-Key of its request."""
    body: Sha256 | None = None
    """Hash of the fields of its request; only with `idempotency`."""


class JobRecord(Frozen):
    """`request.json` of any job; its kind adds the fields."""

    created_at: Timestamp
    user_id: int | None = None
    """Discord user who started the job; None for a job of the command line or of another HTTP client."""
    http: HttpOrigin | None = None
    """Set if the job was started over HTTP."""

    @property
    def owner(self) -> int | str | None:
        return job_owner(self.user_id, self.http)


def job_owner(user_id: int | None, http: HttpOrigin | None) -> int | str | None:
    """Return the Discord user of a job, or else the name of its API key; None for a job of this machine's user."""
    return http.api_key if user_id is None and http is not None else user_id
