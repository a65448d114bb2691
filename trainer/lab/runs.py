"""Work on runs: list, train, follow, cancel, resume, compare; their logs and files."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from itertools import chain

import structlog

from trainer.artifacts.curves import pieces
from trainer.artifacts.job_folder import unreadable
from trainer.artifacts.outcome import shown_line, without_paths
from trainer.artifacts.run_files import RunFiles, named_files
from trainer.artifacts.run_ids import default_label
from trainer.config.experiment_file import experiment_yaml
from trainer.config.validation import format_value
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, at_field, field_error, refusal
from trainer.contracts.http_answers import CancelAnswer, CheckedTraining, Curve, RunPage, RunReport
from trainer.contracts.operations import Role
from trainer.contracts.parameters import (
    CompareQuery,
    CurveQuery,
    LogsQuery,
    ModelPath,
    NoBody,
    NoQuery,
    RunPath,
    RunsQuery,
    WaitQuery,
)
from trainer.contracts.reports import Report
from trainer.contracts.runs import Accepted, AnnotationChange, RunManifest, RunStatus, TrainRequest
from trainer.contracts.wording import SAME_KEY
from trainer.data.corpora import CorpusStore
from trainer.lab.calls import BodyT, LocalResume, LocalTraining, PathT
from trainer.lab.lab import Asked, Lab, Listed
from trainer.lab.permissions import Caller
from trainer.lab.waits import at_end
from trainer.queue.resolve import preview_training
from trainer.queue.run_index import RunEntry, RunRow, rows_of
from trainer.queue.run_list import Place, RunOrder, check_known, found_runs, totals_of, varied_settings
from trainer.reports.comparison import Comparison, check_different, chosen_split, compare
from trainer.reports.comparison_report import comparison_report
from trainer.reports.run_report import run_report
from trainer.system.logs import LogReader

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


_OF_PAGE = {"sort", "order", "limit", "offset", "cursor", "by_group", "settings", "totals"}
"""The fields of a query that choose no runs."""


async def list_runs(lab: Lab, asked: Asked[NoQuery, RunsQuery, NoBody]) -> RunPage:
    """List runs, newest first or sorted by a field of their status."""
    query = asked.query
    order = _order_of(query)
    after = None if query.cursor is None else _place(query.cursor, order)
    await lab.index.refresh()
    check_known(lab.seen_runs(asked.caller), query)
    rows = await _listed(lab, asked.caller, query)
    following = (rows if after is None else order.after(rows, after))[query.offset :]
    start = len(rows) - len(following)
    page = following[: query.limit]
    runs = await lab.feeds.statuses([run.run_id for row in page for run in row.runs])
    cursor = order.place(page[-1]).cursor() if len(following) > len(page) else None
    hidden = [*lab.unreadable_runs(asked.caller)] if _is_of_all(query) else []
    total = len(rows) + len(hidden)
    hidden = hidden if start == 0 else []
    known = {run.run_id for run in runs}
    lost = [lab.stores.runs.directory(run.run_id) for row in page for run in row.runs if run.run_id not in known]
    hidden += [one for run in lost if (one := await asyncio.to_thread(unreadable, run)) is not None]
    found = RunPage(runs=tuple(runs), total=total, next_cursor=cursor, unreadable=tuple(hidden))
    if query.totals:
        found = changed(found, totals=totals_of(rows, range(start, start + len(page)), query.sort))
    if query.settings is None:
        return found
    names, entries = query.settings.split(","), [run for row in page for run in row.runs]
    settings = {run.run_id: {name: text for name in names if (text := run.setting(name))} for run in entries}
    varied = await asyncio.to_thread(varied_settings, [run for row in rows for run in row.runs])
    return changed(found, settings=settings, varied_settings=varied)


def _is_of_all(query: RunsQuery) -> bool:
    """Return whether a list has all runs, in some order: no condition tells whether an unreadable run meets it."""
    conditions: dict[str, object] = query.model_dump(exclude_defaults=True, exclude=_OF_PAGE)
    return not conditions


async def _listed(lab: Lab, caller: Caller, query: RunsQuery) -> Sequence[RunRow]:
    """Return all rows of a list in its order; its pages, and its other orders, share them until a run changes."""
    runs = lab.index.runs
    query = changed(query, limit=1, offset=0, cursor=None, settings=None, totals=False)
    if lab.lists and lab.lists[-1].runs is not runs:
        lab.lists.clear()  # a run has changed
    for listed in lab.lists:
        if listed.runs is runs and listed.query == query and listed.caller == caller:
            return listed.rows
    newest_first = changed(query, sort="created_at", order="desc")
    rows: Sequence[RunRow]
    if query == newest_first:
        rows = await asyncio.to_thread(_rows, lab.seen_runs(caller), query)
    else:
        rows = await asyncio.to_thread(_order_of(query).rows, await _listed(lab, caller, newest_first))
    lab.lists.append(Listed(runs, query, caller, rows))
    return rows


def _order_of(query: RunsQuery) -> RunOrder:
    return RunOrder(query.sort, query.order == "desc")


def _rows(runs: Sequence[RunEntry], query: RunsQuery) -> Sequence[RunRow]:
    """Return the rows that a request asks for, from new to old as the runs."""
    found = found_runs(runs, query)
    if not query.by_group:
        return [RunRow(run.run_id, (run,)) for run in found]
    if len(found) == len(runs):
        return rows_of(runs)
    ids = {run.run_id for run in found}
    return [row for row in rows_of(runs) if any(run.run_id in ids for run in row.runs)]


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


async def train(lab: Lab, asked: Asked[NoQuery, WaitQuery, TrainRequest]) -> Accepted:
    """Start a training; with `wait`, answer with its status at its end, or after this time."""
    if len(asked.body.all_seeds) > 1 and asked.query.wait:
        message = "`wait` waits for one run: leave it out, and wait for the group with `GET /groups/{group_id}?wait=`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    local = asked.query if isinstance(asked.query, LocalTraining) else LocalTraining()
    request = await allowed_request(lab, asked.caller, asked.body, is_sent=local.text is not None)

    async def accept() -> Accepted:
        corpora, corpus = lab.stores.corpora, request.corpus
        if local.text is not None:
            corpora = CorpusStore(lab.settings)
            corpus = await corpora.offer(local.text)
        return await (await lab.live()).train(
            changed(request, corpus=corpus),
            user_id=asked.caller.discord_id,
            http=asked.origin,
            corpora=corpora,
            named=await lab.named_runs(asked.caller),
            requested_paths=local.requested_paths,
            unused_settings=local.unused_settings,
        )

    return await _accept(lab, asked, accept, len(request.all_seeds))


async def check_training(lab: Lab, asked: Asked[NoQuery, NoQuery, TrainRequest]) -> CheckedTraining:
    """Check a train request as `POST /runs/train` does and estimate its cost, without starting anything."""
    request = await allowed_request(lab, asked.caller, asked.body)
    named = await lab.named_runs(asked.caller)
    return (await preview_training(request, lab.stores.corpora, lab.settings, named=named)).checked()


async def allowed_request(lab: Lab, caller: Caller, body: TrainRequest, *, is_sent: bool = False) -> TrainRequest:
    """Return the request with a label, limited to the rights of the caller; `is_sent`: its text comes with it.

    Raises AppError for a text, run or tokenizer that the caller may not use.
    """
    await lab.rights.check_texts(caller, body)
    if body.init_from_run_id is not None:
        with at_field("init_from_run_id"):
            parent = await lab.run_name(caller, body.init_from_run_id, or_checkpoint=True)
        await lab.run(caller, parent, Role.WEIGHTS)
        body = changed(body, init_from_run_id=parent)
    if body.tokenizer_id is not None:
        with at_field("tokenizer_id"):
            tokenizer_id = await lab.full_id(caller, "tokenizer_id", body.tokenizer_id)
            await lab.tokenizer(caller, tokenizer_id)
        body = changed(body, tokenizer_id=tokenizer_id)
    body = body if is_sent else await lab.rights.quoting(caller, body)
    if body.label is None:
        corpus, runs = await asyncio.to_thread(lab.stores.corpora.full_name, body.corpus), await lab.named_runs(caller)
        body = changed(body, label=default_label(corpus, body.model_family, runs, resumes=body.resume))
    return body


async def get_run(lab: Lab, asked: Asked[RunPath, WaitQuery, NoBody]) -> RunStatus:
    """Read the status of a run; with `wait`, after its end or after this time."""
    return await at_end(lambda: lab.feeds.status(asked.path.run_id), asked.query.wait)


async def report_run(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> RunReport:
    """Read the status of a run as `get_run` does; return it with what it says to people."""
    run = await lab.feeds.status(asked.path.run_id)
    report = run_report(run)
    return RunReport(title=report.title, sections=report.sections, run=run)


async def cancel_run(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> CancelAnswer:
    """Cancel a run: it ends after its current step, with its last checkpoint."""
    run = lab.stores.runs.get(asked.path.run_id)
    try:
        await (await lab.live()).states.cancel(run.run_id)
    except AppError as error:
        # the answer to the first request with this key was lost
        is_repeated = asked.key is not None and run.cancel_requested()
        if error.code is not ErrorCode.RUN_FINISHED or not is_repeated:
            raise
    return CancelAnswer()


async def resume_run(lab: Lab, asked: Asked[RunPath, WaitQuery, NoBody]) -> Accepted:
    """Resume a paused run; a failed or cancelled one from its last checkpoint, as a new run."""
    epochs = asked.query.epochs if isinstance(asked.query, LocalResume) else None
    run_id, user_id, origin = asked.path.run_id, asked.caller.discord_id, asked.origin
    queue = await lab.live()
    return await _accept(lab, asked, lambda: queue.resume(run_id, user_id=user_id, http=origin, epochs=epochs))


async def delete_run(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> None:
    """Delete a run that has ended, with its files, unless an experiment or another run needs it."""
    run_id, caller = asked.path.run_id, asked.caller
    await (await lab.live()).states.delete(run_id)
    log.info("run_deleted", user_id=caller.discord_id, api_key=caller.key_name, run_id=run_id)


async def annotate_run(lab: Lab, asked: Asked[RunPath, NoQuery, AnnotationChange]) -> RunStatus:
    """Change the name of a run, and its note and tags, by which lists of runs are searched and filtered."""
    run_id, caller, label = asked.path.run_id, asked.caller, asked.body.label
    called = [] if label is None else [one.run_id for one in await lab.named_runs(caller) if one.label == label]
    if called and run_id not in called:
        message = f"another run is called '{label}': give another name"
        raise field_error(ErrorCode.INVALID_INPUT, "label", message)
    await (await lab.live()).states.annotate(run_id, asked.body)
    log.info("run_annotated", user_id=caller.discord_id, api_key=caller.key_name, run_id=run_id)
    return await lab.feeds.status(run_id)


async def get_manifest(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> RunManifest:
    """Read the manifest of a run that has ended; it has the end of the error output for those who may read the log."""
    run = lab.stores.runs.get(asked.path.run_id)
    manifest: RunManifest = await asyncio.to_thread(lambda: run.manifest() or run.completed_manifest())
    lines = tuple(map(without_paths, manifest.last_lines))
    try:
        await lab.run(asked.caller, run.run_id, Role.OWNER)
    except AppError:
        lines = ()
    return changed(manifest, last_lines=lines)


async def get_files(lab: Lab, asked: Asked[ModelPath, NoQuery, NoBody]) -> RunFiles:
    """List all files of a run with its checkpoints, also before its end; or those of one checkpoint, as RUN@1200."""
    found: RunFiles = await asyncio.to_thread(named_files, lab.stores.runs, asked.path.run_id)
    return found


async def get_logs(lab: Lab, asked: Asked[RunPath, LogsQuery, NoBody]) -> str:
    """Read the last lines of a run's log."""
    run = lab.stores.runs.get(asked.path.run_id)
    lines = await asyncio.to_thread(LogReader(run.logs).last, asked.query.tail)
    return "".join(f"{shown_line(line, stored=asked.query.stored)}\n" for line in lines)


async def get_curve(lab: Lab, asked: Asked[RunPath, CurveQuery, NoBody]) -> Curve:
    """Read the curves of a run by step; `points` limits them, as a run may have a million."""
    query = asked.query
    query.check()
    curves = await lab.feeds.curves(asked.path.run_id)

    def read() -> Curve:
        found: dict[str, object] = {"run_id": asked.path.run_id, "last_event_id": curves.last_seq}
        found["total_points"] = len(curves.by_name["train"])
        for name, points in curves.by_name.items():
            found[name] = tuple(chain.from_iterable(pieces(points, query)))
        return Curve.model_validate(found)

    return await asyncio.to_thread(read)


async def get_config(lab: Lab, asked: Asked[RunPath, NoQuery, NoBody]) -> str:
    """Read the request of a run as an experiment file."""
    return experiment_yaml(await asyncio.to_thread(lab.stores.runs.get(asked.path.run_id).record))


async def report_comparison(lab: Lab, asked: Asked[NoQuery, CompareQuery, NoBody]) -> Report:
    """Compare runs as `compare_runs` does; return what the comparison says to people."""
    return comparison_report(await compare_runs(lab, asked))


async def compare_runs(lab: Lab, asked: Asked[NoQuery, CompareQuery, NoBody]) -> Comparison:
    """Compare metrics and settings of runs, or groups of runs over seeds, on a split."""
    manifests: dict[str, list[RunManifest]] = {}
    names = [await lab.run_name(asked.caller, given, or_group=True) for given in asked.query.runs.split(",")]
    for name in names:
        manifests[name] = await lab.manifests(asked.caller, name)
    check_different(names)
    split, notes = chosen_split(chain.from_iterable(manifests.values()))
    if asked.query.split is not None:
        split, notes = asked.query.split, ()
    return compare([await lab.measured(name, manifests[name], split) for name in names], split=split, notes=notes)


async def _accept(
    lab: Lab, asked: Asked[PathT, WaitQuery, BodyT], accept: Callable[[], Awaitable[Accepted]], count: int = 1
) -> Accepted:
    """Accept a run, or a group of `count`, within the limits, once for each Idempotency-Key."""
    key = asked.key
    if key is None and asked.caller.is_admin:  # nothing limits them
        return await accept()
    async with nullcontext() if key is None else lab.accepting:
        await lab.index.refresh()
        known = next((run for run in lab.index.runs if key is not None and run.idempotency == key), None)
        if known is not None:
            run = lab.stores.runs.get(known.run_id)
            if (await asyncio.to_thread(run.record)).http != asked.origin:
                raise AppError(ErrorCode.CONFLICT, SAME_KEY)
            return await (await lab.live()).accepted_before(run)
        index = lab.index
        return await lab.limits.accept_run(asked.caller, index.unfinished, accept, count=count, recent=index.recent)
