"""The answers of operations in the description of the API: their statuses, contents and links to next operations."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel

from trainer.contracts.base import Frozen
from trainer.contracts.inference_fields import Response
from trainer.contracts.operations import Operation
from trainer.lab.calls import CALLS


class Link(NamedTuple):
    """A next operation, with its parameters as runtime expressions of OpenAPI."""

    operation: str
    parameters: Mapping[str, str]
    body: Mapping[str, str | list[str]] | None = None


class ResponseSpec(NamedTuple):
    """A successful answer: its description, its records or (for other content than JSON) media types, and links."""

    description: str
    content: type[BaseModel] | str | None = None
    links: tuple[Link, ...] = ()
    streams: bool = False
    """The answer may be server-sent events instead."""


_OF_RUN = (
    "get_run",
    "cancel_run",
    "resume_run",
    "get_logs",
    "stream_logs",
    "stream_events",
    "get_curve",
    "get_config",
    "score",
    "generate",
    "predict",
    "chat",
    "evaluate",
    "get_latest_evaluation",
)


def _to(operation: str, *fields: str, **parameters: str) -> Link:
    """Return the link that takes fields of an answer as parameters of the same names, and the given ones."""
    return Link(operation, {**{name: f"$response.body#/{name}" for name in fields}, **parameters})


def _files(kind: str, field: str) -> Link:
    return _to("list_files", kind=kind, item_id=f"$response.body#/{field}")


_RUN = (*(_to(name, "run_id") for name in _OF_RUN), _files("models", "run_id"))
_PORTION = _to("send_portion", "upload_id", "offset")
_FIRST_MODEL = "$response.body#/data/0/id"
_LINKS: Mapping[str, tuple[Link, ...]] = {
    "list_runs": (_to("compare_runs", runs="{$response.body#/runs/0/run_id},{$response.body#/runs/1/run_id}"),),
    "train": _RUN,
    "resume_run": _RUN,
    "export_run": (_to("get_export", "export_id"),),
    "chat": (
        _to("get_chat_answer", "run_id", "session_id", "request_id"),
        _to("get_chat", "run_id", "session_id"),
        _to("delete_chat", "run_id", "session_id"),
    ),
    "list_models": (
        _to("get_model", model=_FIRST_MODEL),
        Link("complete", {}, {"model": _FIRST_MODEL, "prompt": "the sun"}),
        Link("unlock", {}, {"runs": [_FIRST_MODEL]}),
    ),
    "get_upload": (_PORTION,),
    "send_portion": (_PORTION,),
    "train_tokenizer": (_to("get_tokenizer", "tokenizer_id"), _files("tokenizers", "tokenizer_id")),
    "start_experiment": (_to("get_experiment", "experiment_id"), _to("cancel_experiment", "experiment_id")),
    "get_experiment": (_files("experiments", "experiment_id"),),
    "start_study": (_to("get_study", "study_id"), _to("cancel_study", "study_id")),
    "get_study": (_files("studies", "study_id"),),
    "start_battery": (_to("get_battery", "battery_id"), _to("cancel_battery", "battery_id")),
    "get_battery": (_files("batteries", "battery_id"),),
    "start_reading": (_to("get_reading", "reading_id"), _to("cancel_reading", "reading_id")),
    "get_reading": (_files("readings", "reading_id"),),
    "list_files": (_to("download_file", "kind", item_id="$response.body#/id", path="$response.body#/files/0/path"),),
}
_COMPLETE = "The run has ended, and the client that sends Last-Event-ID has everything: it stops connecting again"
_OF_REQUEST = {
    202: "The request is queued or running; the header Location has the address of its result",
    200: "The request has ended: completed, or failed with an error; or `wait` is over",
}


def answers_of(row: Operation, content: type[object]) -> dict[int, ResponseSpec]:
    """Return the answers of an operation by status; `content` is the class of what it answers with."""
    record = content if issubclass(content, Frozen) else None
    links = _LINKS.get(row.name, ())
    match row.name:
        case "get_readyz":
            return {200: ResponseSpec(row.answer, record), 503: ResponseSpec("Jobs wait", record)}
        case "stream_logs" | "stream_events":
            return {200: ResponseSpec(row.answer, row.content), 204: ResponseSpec(_COMPLETE)}
        case "download_file":
            return {
                200: ResponseSpec(row.answer, row.content),
                206: ResponseSpec("The range of the file that the header Range names", row.content),
                304: ResponseSpec("The client has this file: If-None-Match names its ETag"),
            }
        case "start_upload":
            created = "The upload: send its bytes from `offset` on to the address in Location"
            return {
                201: ResponseSpec(created, record, (_to("get_upload", "upload_id"), _PORTION)),
                200: ResponseSpec(row.answer, record),
            }
        case _:
            pass
    if issubclass(content, Response):
        result = (_to(row.follows, "run_id", "request_id"),) if row.follows else ()
        return {status: ResponseSpec(text, content, links or result) for status, text in _OF_REQUEST.items()}
    if row.follows:
        queued = "Without `wait`: the job is queued, and the header Location has its address"
        ended = "With `wait`: its status at its end, or after this time"
        status, at_end = CALLS[row.follows].answer, _LINKS.get(row.follows, ())
        found = status if issubclass(status, Frozen) else None
        return {202: ResponseSpec(queued, record, links), 200: ResponseSpec(ended, found, (*links, *at_end))}
    if record is None and not row.content:
        return {204: ResponseSpec(row.answer)}
    return {200: ResponseSpec(row.answer, row.content or record, links, streams=row.name == "complete")}
