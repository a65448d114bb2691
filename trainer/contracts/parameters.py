"""Parameters of operations: records of paths and queries, read from the text of an address."""

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from trainer.contracts.base import Frozen, GivenName, Identifier, KindName, Names, RunState, describe_fields
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.models import ModelFamily

NumberField = Literal[
    "progress",
    "train_loss",
    "val_loss",
    "best_val_loss",
    "best_val_bits_per_char",
    "test_loss",
    "bits_per_char",
    "params",
]
SortField = Literal["created_at", "label", "model_family", "status", "owner", NumberField]
"""Fields by which a list can be sorted."""
SORT_FIELDS: tuple[SortField, ...] = get_args(SortField)
NUMBER_FIELDS: tuple[NumberField, ...] = get_args(NumberField)
_SIGNS = ("<=", ">=", "<", ">", "=")
_CONDITION_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SETTING = r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*"
_VALUE = r"[^,<>=]{1,200}"
_OF_NUMBER = rf"(?:{'|'.join(NUMBER_FIELDS)})(?:{'|'.join(_SIGNS)})"
_CONDITION = rf"(?:{_OF_NUMBER}{_CONDITION_NUMBER}|(?!{_OF_NUMBER}){_SETTING}(?:{'|'.join(_SIGNS)}){_VALUE})"
"""Pattern of a condition on a number or a setting of a run: `test_loss<3.2`, `optimizer.name=adamw`."""
CONDITION_PARTS = rf"({_SETTING})({'|'.join(_SIGNS)})({_VALUE})"
"""The name, the sign and the value of a condition as groups of the pattern."""
SettingName = Annotated[str, Field(max_length=200, pattern=f"^{_SETTING}$")]
"""Name of a setting of a run, with dots where it is in a block."""
MAX_WAIT_SECONDS = 60
MAX_COMPARED = 10
"""Runs and groups of one comparison."""
MAX_LINES = 10_000
"""Last lines of a log that stay in memory."""
_INTEGER = r"-?[0-9]{1,18}"
_NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"


def _matches(pattern: str, name: str) -> BeforeValidator:
    """Return a validator of text in a query, which must be `name`."""
    compiled = re.compile(pattern)

    def check(value: object) -> object:
        if isinstance(value, str) and not compiled.fullmatch(value):
            raise ValueError(f"must be {name}")
        return value

    return BeforeValidator(check)


_WHOLE = _matches(_INTEGER, "an integer")
_FLAG = _matches("true|false", "true or false")
_Part = Annotated[str, Field(max_length=200)]
_ONE_CONDITION = re.compile(_CONDITION)


def _check_conditions(value: object) -> object:
    """Return conditions without the spaces around them; refuse the first part of a text that is none."""
    if not isinstance(value, str) or not value:
        return value
    parts = [part.strip() for part in value.split(",")]
    wrong = next((part for part in parts if not _ONE_CONDITION.fullmatch(part)), None)
    if wrong is not None:
        raise ValueError(
            "must be conditions such as test_loss<3.2 or progress>=50, with commas between them, on "
            f"{', '.join(NUMBER_FIELDS)} or a setting of the runs; '{wrong[:200]}' is none"
        )
    return ",".join(parts)


_RUN_NAMES = rf"^[^,]{{1,100}}(,[^,]{{1,100}}){{1,{MAX_COMPARED - 1}}}$"


class Query(BaseModel):
    """Parameters of a path or a query: text that is converted to the types of the fields."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=describe_fields
    )


class NoQuery(Query):
    """No parameters."""


class NoBody(Frozen):
    """No body."""


class RunPath(Query):
    run_id: Annotated[GivenName, Names.RUN]


class ModelPath(Query):
    run_id: Annotated[GivenName, Names.RUN]


class GroupPath(Query):
    group_id: Annotated[GivenName, Names.RUN]


class ExportPath(Query):
    export_id: Annotated[GivenName, Names.JOB]


class VerificationPath(Query):
    verification_id: Annotated[GivenName, Names.JOB]


class BuildPath(Query):
    build_id: Annotated[GivenName, Names.JOB]


class CorpusPath(Query):
    corpus: Annotated[GivenName, Names.TEXT]


class RequestPath(RunPath):
    request_id: Annotated[Identifier, Names.REQUEST]


class ChatPath(RunPath):
    session_id: Annotated[Identifier, Names.REQUEST]


class ChatTurnPath(ChatPath):
    request_id: Annotated[Identifier, Names.REQUEST]


class TokenizerPath(Query):
    tokenizer_id: Annotated[GivenName, Names.TOKENIZER]


class ExperimentPath(Query):
    experiment_id: Annotated[GivenName, Names.JOB]


class BatteryPath(Query):
    battery_id: Annotated[GivenName, Names.JOB]


class UploadPath(Query):
    upload_id: Annotated[Identifier, Names.UPLOAD]


class ArtifactPath(Query):
    kind: KindName
    item_id: Annotated[GivenName, Names.JOB]


_Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_SECONDS), _matches(_NUMBER, "a number")]


class WaitQuery(Query):
    wait: _Wait = 0.0
    """Seconds to wait for the result; 0: answer at once."""


class PredictQuery(WaitQuery):
    wait: _Wait = 30.0
    """Seconds to wait for the result; 0: answer at once."""


class AnyRunQuery(PredictQuery):
    run_id: Annotated[GivenName, Names.RUN] | None = None
    """The run, or a checkpoint of it; default: the newest completed run that predicts the next token."""


class RunsQuery(Query):
    status: RunState | None = None
    """Only runs in this state."""
    family: ModelFamily | None = None
    corpus: _Part = ""
    """Only runs on a corpus whose name has this part, in any case."""
    owner: Annotated[str, Field(max_length=200)] | None = None
    """Only runs of this API key, by its name, or of this Discord user."""
    label: _Part = ""
    """Only runs whose label has this part, in any case."""
    group: Annotated[Identifier, Names.RUN] | None = None
    """Only the runs of this group over seeds."""
    parent: Annotated[Identifier, Names.RUN] | None = None
    """Only the runs that resumed this run or took its weights; for a group, those of all its runs."""
    search: _Part = ""
    """Only runs whose label, id, corpus, tags or note match these words."""
    where: Annotated[str, Field(max_length=500), BeforeValidator(_check_conditions)] = ""
    """Only runs whose numbers and settings meet these conditions, with commas between them, such as
    `test_loss<3.2,optimizer.name=adamw`; a list, such as `tags`, equals each of its values."""
    sort: SettingName = "created_at"
    """The field of their status, such as `test_loss`, or the setting by which runs are sorted, unknown values
    last."""
    settings: Annotated[str | None, Field(max_length=2000, pattern=rf"^({_SETTING}(,{_SETTING})*)?$")] = None
    """Names of settings whose values the answer has, with commas between them."""
    totals: Annotated[bool, _FLAG] = False
    """true: with a setting as `sort`, the answer has the number of runs and the means of each value on its page."""
    order: Literal["asc", "desc"] = "desc"
    by_group: Annotated[bool, _FLAG] = False
    """true: the runs of a group count as one, sorted by the means of the completed ones; if one of them is found, the
    answer has all of them, one after another."""
    limit: Annotated[int, Field(ge=1, le=200), _WHOLE] = 50
    """Number of runs, or with `by_group` of groups and single runs."""
    offset: Annotated[int, Field(ge=0, le=10_000_000), _WHOLE] = 0
    """Number of runs, or with `by_group` of groups and single runs, that are left out before the first."""
    cursor: Annotated[str, Field(max_length=2000)] | None = None
    """`next_cursor` of the page before, with the same `sort` and `order`: no run is left out or comes twice because
    others start."""


class JobsQuery(Query):
    limit: Annotated[int, Field(ge=1, le=1000), _WHOLE] = 1000
    """Number of jobs."""
    offset: Annotated[int, Field(ge=0, le=10_000_000), _WHOLE] = 0
    """Number of newer jobs that are left out before the first: `next_offset` of the page before."""


class LogsQuery(Query):
    tail: Annotated[int, Field(ge=0, le=MAX_LINES), _WHOLE] = 200
    """Number of last lines."""
    stored: Annotated[bool, _FLAG] = False
    """true: the lines as stored, one JSON object each."""


class CompareQuery(Query):
    runs: Annotated[str, Field(pattern=_RUN_NAMES), Names.RUN]
    """Names of two to ten runs or groups, separated by commas; the first one is compared with the others."""
    split: EvalSplit | None = None
    """The split; default: test, or validation where the test split of a run is locked and unread."""


class CurveQuery(Query):
    points: Annotated[int | None, Field(ge=2, le=100_000), _WHOLE] = None
    """About how many points of each curve to return; without it, all of them.

    A curve with more points is divided into buckets, and each keeps its lowest and its highest point.
    """
    from_step: Annotated[int, Field(ge=0), _WHOLE] = 0
    """The first step."""
    to_step: Annotated[int | None, Field(ge=0), _WHOLE] = None
    """The last step; without it, that of the run."""

    def check(self) -> None:
        """Raise INVALID_INPUT if the range has no step."""
        if self.to_step is not None and self.to_step < self.from_step:
            raise AppError(ErrorCode.INVALID_INPUT, "`to_step` must not be lower than `from_step`.")


class SamplesQuery(Query):
    limit: Annotated[int, Field(ge=1, le=1000), _WHOLE] = 100
    """Largest number of samples: the last ones."""


class FileQuery(Query):
    path: Annotated[str, Field(min_length=1, max_length=512)]
    """Path of a file, as the list of files has it."""


class PortionQuery(Query):
    offset: Annotated[int, Field(ge=0), _WHOLE]
    """Position of the first byte of the portion: the `offset` of the upload."""
