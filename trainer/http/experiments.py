"""Operations on experiments: start, list, follow, cancel. Their files are artifacts."""

from collections.abc import Mapping

from aiohttp import web

from trainer.artifacts.experiments import without_details
from trainer.contracts.base import GivenName
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentList, ExperimentRequest, ExperimentStatus
from trainer.http.operations import (
    ApiRequest,
    BodyT,
    Link,
    NoBody,
    NoQuery,
    Operation,
    PathT,
    Query,
    QueryT,
    ResponseSpec,
    WaitQuery,
    job_answers,
    operation,
    reply,
)
from trainer.http.waiting import check_first, reply_accepted, reply_at_end, reply_cancelled
from trainer.queue.experiments import resolve_experiment


class ExperimentPath(Query):
    experiment_id: GivenName


async def list_experiments(call: ApiRequest[NoQuery, NoQuery, NoBody]) -> web.StreamResponse:
    """List all experiments, newest first, without their cells and files."""
    check_may_see(call)
    statuses = await call.api.queue.experiments.all()
    return reply(ExperimentList(experiments=tuple(map(without_details, statuses))))


async def start_experiment(call: ApiRequest[NoQuery, WaitQuery, ExperimentRequest]) -> web.StreamResponse:
    """Start an experiment; an equal request names the same experiment. Only admins may do this."""
    _check_admin(call)
    queue = call.api.queue
    record, items = await resolve_experiment(
        call.body, queue.corpora, call.api.settings, user_id=call.client.user_id, http=call.origin
    )
    await check_first(call, record.experiment_id)
    accepted, address = await queue.experiments.accept(record, items), f"/experiments/{record.experiment_id}"
    return await reply_accepted(call, accepted, address, lambda: queue.experiments.status(record.experiment_id))


async def get_experiment(call: ApiRequest[ExperimentPath, WaitQuery, NoBody]) -> web.StreamResponse:
    """Read the status of an experiment with its cells; with `wait`, after its end or after this time."""
    check_may_see(call)
    return await reply_at_end(call, lambda: call.api.queue.experiments.status(call.path.experiment_id))


async def cancel_experiment(call: ApiRequest[ExperimentPath, NoQuery, NoBody]) -> web.StreamResponse:
    """Cancel an experiment with its unfinished runs; finished runs stay. Only admins may do this."""
    experiments, experiment_id = call.api.queue.experiments, call.path.experiment_id
    experiments.stored.get(experiment_id)
    _check_admin(call)
    return await reply_cancelled(
        call, lambda: experiments.cancel(experiment_id), lambda: experiments.status(experiment_id)
    )


def _check_admin(call: ApiRequest[PathT, QueryT, BodyT]) -> None:
    if not call.client.is_admin:
        raise AppError(ErrorCode.FORBIDDEN, "Only admins may start and cancel experiments.")


def check_may_see(call: ApiRequest[PathT, QueryT, BodyT]) -> None:
    """Raise FORBIDDEN for a client that may not see experiments."""
    call.api.permissions.check_experiments(is_admin=call.client.is_admin)


_ID = "$response.body#/experiment_id"
_LINKS = (
    Link("get_experiment", {"experiment_id": _ID}),
    Link("cancel_experiment", {"experiment_id": _ID}),
)
_FILES = Link("list_files", {"kind": "experiments", "item_id": _ID})
_TINY: Mapping[str, object] = {
    "model_family": "lstm",
    "tokenizer": {"method": "char"},
    "model": {"embedding_size": 8, "hidden_size": 8, "num_layers": 1},
    "max_seq_len": 64,
    "max_steps": 2,
    "split_by": "position",
    "threads": 1,
}
OPERATIONS: tuple[Operation, ...] = (
    operation(
        "GET /experiments", list_experiments, {200: ResponseSpec("The experiments", ExperimentList)}, tag="experiments"
    ),
    operation(
        "POST /experiments",
        start_experiment,
        job_answers(ExperimentStatus, ExperimentStatus, _LINKS, _FILES),
        tag="experiments",
        example={
            "name": "try",
            "languages": {"kk": {}, "tr": {}},
            "corpora": "udhr_ipa",
            "models": {"lstm": {"train": _TINY}},
            "seeds": [1],
            "modes": ["skip"],
        },
    ),
    operation(
        "GET /experiments/{experiment_id}",
        get_experiment,
        {200: ResponseSpec("The status of the experiment", ExperimentStatus, (_FILES,))},
        tag="experiments",
    ),
    operation(
        "POST /experiments/{experiment_id}/cancel",
        cancel_experiment,
        {200: ResponseSpec("The status of the cancelled experiment", ExperimentStatus)},
        tag="experiments",
    ),
)
