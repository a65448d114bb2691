"""Operations on runs: train, list, follow, cancel, resume, compare, logs, events and curves."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Annotated, Literal

import structlog
from aiohttp import web
from pydantic import Field

from trainer.artifacts.outcome import shown_line, without_paths
from trainer.artifacts.run_files import RunFiles, named_files
from trainer.artifacts.run_ids import default_label
from trainer.artifacts.runs import RunDirectory
from trainer.config.experiment_file import experiment_yaml
from trainer.config.train_request import train_request
from trainer.config.validation import format_value
from trainer.contracts.base import Identifier, RunState, changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, at_field, refusal
from trainer.contracts.http_answers import CancelAnswer, CheckedTraining, RunPage
from trainer.contracts.inference import EvalSplit
from trainer.contracts.models import ModelFamily
from trainer.contracts.runs import Accepted, RunManifest, RunStatus, TrainRequest
from trainer.http.api import Listed
from trainer.http.event_streams import LOG_END, stream_tail
from trainer.http.groups import read_group
from trainer.http.operations import (
    FLAG,
    OTHER_RUN,
    RUN,
    WHOLE,
    ApiRequest,
    BodyT,
    Link,
    ModelPath,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    QueryT,
    ResponseSpec,
    RunPath,
    WaitQuery,
    job_answers,
    matches,
    operation,
    reply,
)
from trainer.http.tails import MAX_LINES, stored_events
from trainer.http.waiting import reply_accepted, reply_at_end
from trainer.queue.inference_client import SAME_KEY
from trainer.queue.resolve import preview_training
from trainer.queue.run_index import RunEntry, RunRow, matching, rows_of
from trainer.queue.run_list import CONDITION, NUMBER_FIELDS, Place, RunOrder, SortField, condition
from trainer.reports.comparison import (
    Comparison,
    Measured,
    MeasuredGroup,
    Measurement,
    check_different,
    compare,
    summary_on,
)
from trainer.system.logs import LogReader

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_Part = Annotated[str, Field(max_length=200)]
_CONDITIONS = rf"^({CONDITION}(,{CONDITION})*)?$"
_IS_CONDITIONS = matches(
    _CONDITIONS,
    "conditions such as test_loss<3.2 or progress>=50, with commas between them, on "
    f"{', '.join(NUMBER_FIELDS[:-1])} or {NUMBER_FIELDS[-1]}",
)
_RUN_NAMES = r"^[^,]{1,100}(,[^,]{1,100}){1,9}$"


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
    group: Identifier | None = None
    """Only the runs of this group over seeds."""
    parent: Identifier | None = None
    """Only the runs that resumed this run or took its weights; for a group, those of all its runs."""
    search: _Part = ""
    """Only runs whose label, id or corpus matches these words."""
    where: Annotated[str, Field(max_length=500, pattern=_CONDITIONS), _IS_CONDITIONS] = ""
    """Only runs whose numbers meet these conditions, with commas between them, such as `test_loss<3.2,progress>=50`."""
    sort: SortField = "created_at"
    """The field of their status by which the runs are sorted; those without a value are last."""
    order: Literal["asc", "desc"] = "desc"
    by_group: Annotated[bool, FLAG] = False
    """true: the runs of a group count as one, sorted by the means of the completed ones; if one of them is found, the
    answer has all of them, one after another."""
    limit: Annotated[int, Field(ge=1, le=200), WHOLE] = 50
    """Number of runs, or with `by_group` of groups and single runs."""
    offset: Annotated[int, Field(ge=0, le=10_000_000), WHOLE] = 0
    """Number of runs, or with `by_group` of groups and single runs, that are left out before the first."""
    cursor: Annotated[str, Field(max_length=2000)] | None = None
    """`next_cursor` of the page before, with the same `sort` and `order`: no run is left out or comes twice because
    others start."""


class LogsQuery(Query):
    tail: Annotated[int, Field(ge=0, le=MAX_LINES), WHOLE] = 200
    """Number of last lines."""
    stored: Annotated[bool, FLAG] = False
    """true: the lines as stored, one JSON object each."""


class CompareQuery(Query):
    runs: Annotated[str, Field(pattern=_RUN_NAMES)]
    """Names of two to ten runs or groups, separated by commas; the first one is compared with the others."""
    split: EvalSplit = "test"


async def list_runs(call: ApiRequest[NoQuery, RunsQuery, NoBody]) -> web.StreamResponse:
    """List runs, newest first or sorted by a field of their status."""
    api, query = call.api, call.query
    order = _order_of(query)
    after = None if query.cursor is None else _place(query.cursor, order)
    await api.index.refresh()
    rows = await _listed(call, query)
    following = (rows if after is None else order.after(rows, after))[query.offset :]
    page = following[: query.limit]
    runs = await api.feeds.statuses([run.run_id for row in page for run in row.runs])
    cursor = order.place(page[-1]).cursor() if len(following) > len(page) else None
    return reply(RunPage(runs=tuple(runs), total=len(rows), next_cursor=cursor))


async def _listed(call: ApiRequest[NoQuery, RunsQuery, NoBody], query: RunsQuery) -> Sequence[RunRow]:
    """Return all rows of a list in its order; its pages, and its other orders, share them until a run changes."""
    api, runs, caller = call.api, call.api.index.runs, call.client.caller
    query = changed(query, limit=1, offset=0, cursor=None)
    if api.lists and api.lists[-1].runs is not runs:
        api.lists.clear()  # a run has changed
    for listed in api.lists:
        if listed.runs is runs and listed.query == query and listed.caller == caller:
            return listed.rows
    newest_first = changed(query, sort="created_at", order="desc")
    rows: Sequence[RunRow]
    if query == newest_first:
        visible = [run for run in runs if api.permissions.may_see(caller, run)]
        rows = await asyncio.to_thread(_rows, visible, query)
    else:
        rows = await asyncio.to_thread(_order_of(query).rows, await _listed(call, newest_first))
    api.lists.append(Listed(runs, query, caller, rows))
    return rows


def _order_of(query: RunsQuery) -> RunOrder:
    return RunOrder(query.sort, query.order == "desc")


def _rows(runs: Sequence[RunEntry], query: RunsQuery) -> Sequence[RunRow]:
    """Return the rows that a request asks for, from new to old as the runs."""
    found = _found(runs, query)
    if not query.by_group:
        return [RunRow(run.run_id, (run,)) for run in found]
    if len(found) == len(runs):
        return rows_of(runs)
    ids = {run.run_id for run in found}
    return [row for row in rows_of(runs) if any(run.run_id in ids for run in row.runs)]


def _found(runs: Sequence[RunEntry], query: RunsQuery) -> Sequence[RunEntry]:
    """Return the runs that a request asks for."""
    corpus, label = query.corpus.casefold(), query.label.casefold()
    members = {run.run_id for run in runs if run.group_id == query.parent} if query.parent else set[str]()
    tests: list[tuple[object, Callable[[RunEntry], bool]]] = [
        (query.status, lambda run: run.state == query.status),
        (query.family, lambda run: run.family == query.family),
        (query.owner, lambda run: run.owner == query.owner),
        (query.group, lambda run: run.group_id == query.group),
        (query.parent, lambda run: query.parent in run.parents or not members.isdisjoint(run.parents)),
        (corpus, lambda run: not run.has_attached_text and corpus in run.corpus.casefold()),
        (label, lambda run: label in (run.label or "").casefold()),
        *((text, condition(text)) for text in query.where.split(",") if text),
    ]
    for asked, holds in tests:
        if asked:
            runs = [run for run in runs if holds(run)]
    if not query.search.strip():
        return runs
    ids = {run.run_id for run in matching(query.search, runs, run_names, exactly=True)}
    return [run for run in runs if run.run_id in ids]


def _place(cursor: str, order: RunOrder) -> Place:
    """Return the place of a cursor; raises INVALID_INPUT for one that no page of this order has given."""
    try:
        place = Place.of_cursor(cursor)
    except ValueError:
        place = None
    if place is None or (place.sort, place.is_descending) != order:
        message = (
            "`cursor` must be the `next_cursor` of a page of the same `sort` and `order`. List from the first run."
        )
        problem = FieldProblem(path="cursor", message=message, value=format_value(cursor))
        raise refusal(ErrorCode.INVALID_INPUT, problem)
    return place


async def train(call: ApiRequest[NoQuery, WaitQuery, TrainRequest]) -> web.StreamResponse:
    """Start a training; with `wait`, answer with its status at its end, or after this time."""
    request = await _allowed_request(call)
    user_id, origin, count = call.client.user_id, call.origin, len(call.body.all_seeds)
    if count > 1 and call.query.wait:
        message = "`wait` waits for one run: leave it out, and wait for the group with `GET /groups/{group_id}?wait=`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    return await _accept(call, lambda: call.api.queue.train(request, user_id=user_id, http=origin), count)


async def check_training(call: ApiRequest[NoQuery, NoQuery, TrainRequest]) -> web.StreamResponse:
    """Check a train request as `POST /runs/train` does and estimate its cost, without starting anything."""
    request = await _allowed_request(call)
    with call.api.limits.request(call.client.caller):
        preview = await preview_training(request, call.api.queue.corpora, call.api.settings)
    return reply(preview.checked())


async def _allowed_request(call: ApiRequest[PathT, QueryT, TrainRequest]) -> TrainRequest:
    """Return the request with a label; raises AppError for a run or tokenizer that the client may not use."""
    body = call.body
    if body.init_from_run_id is not None:
        with at_field("init_from_run_id"):
            parent = await call.api.run_name(call.client, body.init_from_run_id, or_checkpoint=True)
        await call.api.run(call.client, parent, "train")
        body = changed(body, init_from_run_id=parent)
    if body.tokenizer_id is not None:
        with at_field("tokenizer_id"):
            tokenizer_id = await call.api.full_id(call.client, "tokenizer_id", body.tokenizer_id)
            await call.api.tokenizer(call.client, tokenizer_id, "train")
        body = changed(body, tokenizer_id=tokenizer_id)
    if body.label is None:
        await call.api.index.refresh()
        seen = [run for run in call.api.index.runs if call.api.permissions.may_see(call.client.caller, run)]
        corpus = await asyncio.to_thread(call.api.queue.corpora.full_name, body.corpus)
        body = changed(body, label=default_label(corpus, body.model_family, seen, resumes=body.resume))
    return body


async def get_run(call: ApiRequest[RunPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status of a run; with `wait`, after its end or after this time."""
    await call.api.run(call.client, call.path.run_id)
    return await reply_at_end(call, lambda: call.api.feeds.status(call.path.run_id))


async def cancel_run(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Cancel a run: it ends after its current step, with its last checkpoint."""
    run = await call.api.run(call.client, call.path.run_id, "cancel")
    try:
        await call.api.queue.states.cancel(run.run_id)
    except AppError as error:
        # the answer to the first request with this key was lost
        is_repeated = call.idempotency is not None and run.cancel_requested()
        if error.code is not ErrorCode.RUN_FINISHED or not is_repeated:
            raise
    return reply(CancelAnswer())


async def resume_run(call: ApiRequest[RunPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Resume a paused run; a failed or cancelled one from its last checkpoint, as a new run."""
    run = await call.api.run(call.client, call.path.run_id, "resume")
    user_id, origin = call.client.user_id, call.origin
    return await _accept(call, lambda: call.api.queue.resume(run.run_id, user_id=user_id, http=origin))


async def delete_run(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Delete a run that has ended, with its files, unless an experiment or another run needs it."""
    run = await call.api.run(call.client, call.path.run_id, "cancel")
    await call.api.queue.states.delete(run.run_id)
    log.info("run_deleted", user_id=call.client.user_id, api_key=call.client.name, run_id=run.run_id)
    return web.Response(status=204)


async def get_manifest(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the manifest of a run that has ended; it has the end of the error output for those who may read the log."""
    run = await call.api.run(call.client, call.path.run_id)
    manifest = await asyncio.to_thread(_ended_manifest, run)
    lines = tuple(map(without_paths, manifest.last_lines))
    try:
        await call.api.run(call.client, run.run_id, "logs")
    except AppError:
        lines = ()
    return reply(changed(manifest, last_lines=lines))


async def get_files(call: ApiRequest[ModelPath, NoQuery, NoBody]) -> web.StreamResponse:
    """List all files of a run with its checkpoints, also before its end; or those of one checkpoint, as RUN@1200."""
    await call.api.run(call.client, call.path.run_id)
    found: RunFiles = await asyncio.to_thread(named_files, call.api.queue.runs, call.path.run_id)
    return reply(found)


async def get_logs(call: ApiRequest[RunPath, LogsQuery, NoBody]) -> web.StreamResponse:
    """Read the last lines of a run's log."""
    run = await call.api.run(call.client, call.path.run_id, "logs")
    lines = await asyncio.to_thread(LogReader(run.logs).last, call.query.tail)
    return web.Response(text="".join(f"{shown_line(line, stored=call.query.stored)}\n" for line in lines))


async def stream_logs(call: ApiRequest[RunPath, LogsQuery, NoBody]) -> web.StreamResponse:
    """Follow a run's log as server-sent events: its last lines, then each new line until the run ends."""
    run = await call.api.run(call.client, call.path.run_id, "logs")
    async with call.api.tails.logs(run, stored=call.query.stored) as tail:
        position = await tail.last(call.query.tail)
        if tail.ended and call.request.headers.get("Last-Event-ID") == LOG_END:
            return web.Response(status=204)
        return await stream_tail(call.api, call.client, call.request, tail, position, end_id=LOG_END)


async def stream_events(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Follow a run's events as server-sent events, from the one after the header Last-Event-ID, until the run ends."""
    run = await call.api.run(call.client, call.path.run_id)
    last = call.request.headers.get("Last-Event-ID", "")
    seen = int(last) if last.isascii() and last.isdecimal() and len(last) < 16 else 0
    async with call.api.tails.events(run) as tail:
        position = await tail.position_after(seen)
        if seen and tail.ended and not tail.after(position)[0]:
            return web.Response(status=204)
        earlier = stored_events(run, seen, tail.first_number())
        return await stream_tail(call.api, call.client, call.request, tail, position, earlier=earlier)


async def get_config(call: ApiRequest[RunPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Read the request of a run as an experiment file."""
    run = await call.api.run(call.client, call.path.run_id)
    text = experiment_yaml(await asyncio.to_thread(run.record))
    return web.Response(text=text, content_type="application/yaml")


async def compare_runs(call: ApiRequest[NoQuery, CompareQuery, NoBody]) -> web.StreamResponse:
    """Compare metrics and settings of runs, or groups of runs over seeds, on a split."""
    split = call.query.split
    names: list[str] = []
    measured: list[Measured] = []
    for given in call.query.runs.split(","):
        name = await call.api.run_name(call.client, given, or_group=True)
        names.append(name)
        if call.api.queue.runs.find(name) is not None:
            measured.append(await _measured(call, name))
            continue
        group = await read_group(call.api, call.client, name, "compare")
        runs = [await _measured(call, one.run_id) for one in group.with_completed()]
        measured.append(MeasuredGroup(name, runs, group.left_out()))
    check_different(names)
    return reply(compare(measured, split=split))


async def _measured(call: ApiRequest[NoQuery, CompareQuery, NoBody], run_id: str) -> Measurement:
    run = await call.api.run(call.client, run_id, "compare")
    manifest = await asyncio.to_thread(run.completed_manifest)
    follower = (await call.api.feeds.read(run_id)).follower
    return Measurement(manifest, summary_on(manifest, call.query.split), follower.status.tokens_per_second)


def run_names(run: RunEntry) -> tuple[str, ...]:
    """Return the names by which a search finds a run."""
    return (run.name, run.run_id) if run.has_attached_text else (run.name, run.run_id, run.corpus)


def _ended_manifest(run: RunDirectory) -> RunManifest:
    return run.manifest() or run.completed_manifest()


async def _accept(
    call: ApiRequest[PathT, WaitQuery, BodyT], accept: Callable[[], Awaitable[Accepted]], count: int = 1
) -> web.StreamResponse:
    """Accept a run, or a group of `count`, within the limits, once for each Idempotency-Key.

    With `wait`, answer with its status.
    """
    api, key = call.api, call.idempotency
    async with nullcontext() if key is None else api.accepting:
        await api.index.refresh()
        known = next((run for run in api.index.runs if key is not None and run.idempotency == key), None)
        if known is not None:
            run = api.queue.runs.get(known.run_id)
            if (await asyncio.to_thread(run.record)).http != call.origin:
                raise AppError(ErrorCode.CONFLICT, SAME_KEY)
            accepted = await api.queue.accepted_before(run)
        else:
            unfinished = [run for run in api.index.runs if run.is_unfinished]
            accepted = await api.limits.accept_run(call.client.caller, unfinished, accept, count=count)
    address = f"/runs/{accepted.run_id}" if accepted.group is None else f"/groups/{accepted.group.group_id}"
    return await reply_accepted(call, accepted, address, lambda: api.feeds.status(accepted.run_id))


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
_LINKS = (
    *(Link(name, {"run_id": "$response.body#/run_id"}) for name in _OF_RUN),
    Link("list_files", {"kind": "models", "item_id": "$response.body#/run_id"}),
)
_NEWEST_TWO = Link("compare_runs", {"runs": "{$response.body#/runs/0/run_id},{$response.body#/runs/1/run_id}"})
_STARTED = job_answers(Accepted, RunStatus, _LINKS)
_STREAM = {
    200: ResponseSpec("Server-sent events", "text/event-stream"),
    204: ResponseSpec(
        "The run has ended, and the client that sends Last-Event-ID has everything: it stops connecting again"
    ),
}

OPERATIONS: tuple[Operation, ...] = (
    operation("GET /runs", list_runs, {200: ResponseSpec("A page of runs", RunPage, links=(_NEWEST_TWO,))}, tag="runs"),
    operation(
        "POST /runs/train",
        train,
        _STARTED,
        tag="runs",
        read=train_request,
        example={"corpus": "demo", "model_family": "char_lstm", "model_size": "tiny", "max_steps": 20},
    ),
    operation(
        "POST /runs/check",
        check_training,
        {200: ResponseSpec("The request would be accepted", CheckedTraining)},
        tag="runs",
        read=train_request,
        example={"corpus": "demo", "model_family": "char_lstm", "model_size": "tiny", "max_steps": 20},
    ),
    operation("GET /runs/{run_id}", get_run, {200: ResponseSpec("The status of the run", RunStatus)}, tag="runs"),
    operation(
        "POST /runs/{run_id}/cancel",
        cancel_run,
        {200: ResponseSpec("The run is cancelled, or will be after its current step", CancelAnswer)},
        tag="runs",
    ),
    operation("POST /runs/{run_id}/resume", resume_run, _STARTED, tag="runs"),
    operation("DELETE /runs/{run_id}", delete_run, {204: ResponseSpec("The run is deleted")}, tag="runs"),
    operation(
        "GET /runs/{run_id}/manifest", get_manifest, {200: ResponseSpec("The manifest", RunManifest)}, tag="runs"
    ),
    operation("GET /runs/{run_id}/files", get_files, {200: ResponseSpec("The files", RunFiles)}, tag="runs"),
    operation("GET /runs/{run_id}/logs", get_logs, {200: ResponseSpec("The last lines", "text/plain")}, tag="runs"),
    operation("GET /runs/{run_id}/logs/stream", stream_logs, _STREAM, tag="runs"),
    operation("GET /runs/{run_id}/events", stream_events, _STREAM, tag="runs"),
    operation(
        "GET /runs/{run_id}/config.yaml",
        get_config,
        {200: ResponseSpec("The experiment file", "application/yaml")},
        tag="runs",
    ),
    operation(
        "GET /compare",
        compare_runs,
        {200: ResponseSpec("The comparison", Comparison)},
        tag="runs",
        query_example={"runs": f"{RUN},{OTHER_RUN}"},
    ),
)
