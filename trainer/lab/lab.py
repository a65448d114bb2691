"""The room below all faces: what they ask for is checked and done here, by one function per operation."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias

from pydantic import BaseModel

from trainer.artifacts.deletion import Needed
from trainer.artifacts.job_folder import AnyStatusJob, JobStore
from trainer.artifacts.kinds import STATUS_KINDS
from trainer.artifacts.run_groups import runs_of_group
from trainer.artifacts.run_ids import Named, one_run_id
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.base import HttpOrigin, JobRecord, Names, narrowed, run_of
from trainer.contracts.batteries import BatteryRecord
from trainer.contracts.chats import CHAT_EXPIRED, ChatHistory, ChatRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.inference_fields import Asks, ResponseT
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.naming import named
from trainer.contracts.operations import JOB_ROWS, JobRow, Operation, Role
from trainer.contracts.parameters import ModelPath
from trainer.contracts.runs import RunManifest
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.data.corpus_uploads import CorpusUploads
from trainer.lab.calls import AnswerT, BodyT, BodyT_co, Call, PathT, PathT_co, QueryT, QueryT_co
from trainer.lab.language import _
from trainer.lab.limits import UsageLimits
from trainer.lab.permissions import Caller, Permissions
from trainer.lab.rights import Rights
from trainer.queue.run_feeds import RunFeeds
from trainer.queue.run_index import RunEntry, RunIndex, RunRow
from trainer.queue.stores import Stores
from trainer.reports.comparison import Measured, MeasuredGroup, Measurement, summary_on

if TYPE_CHECKING:  # redis, without which a command reads what is stored
    from trainer.queue.queue import JobQueue

_ROWS: Mapping[str, JobRow] = {row.id_field: row for row in JOB_ROWS.values()}
"""Kinds of jobs by the parameter of paths that names one."""
_NAMED = ("run_id", "group_id", "model", *_ROWS)
"""Parameters of paths that take names."""
_MAX_LISTS = 16
"""Lists of runs that stay in memory."""


class Asked(NamedTuple, Generic[PathT_co, QueryT_co, BodyT_co]):
    """An operation that somebody asks for, with its inputs."""

    operation: Operation
    caller: Caller
    path: PathT_co
    query: QueryT_co
    body: BodyT_co
    key: str | None = None
    """Stands for the Idempotency-Key of this caller and address; None without a key."""
    origin: HttpOrigin | None = None
    """The origin of a run that this starts; None where it was not asked for over HTTP."""

    @property
    def request_id(self) -> str | None:
        """The id of the job or request that the Idempotency-Key stands for; None without a key."""
        return None if self.key is None else self.key[:32]


class Listed(NamedTuple):
    """The rows of a list of runs that a caller has asked for."""

    runs: Sequence[RunEntry]
    """The runs of the index when the list was made."""
    query: BaseModel
    caller: Caller
    rows: Sequence[RunRow]


class Lab:
    """An installation, for those who ask something of it."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        feeds: RunFeeds,
        permissions: Permissions,
        queue: "JobQueue | None" = None,
    ) -> None:
        self.settings = settings
        self.stores = stores
        self.feeds = feeds
        self.index = RunIndex(stores, feeds, settings.app.artifacts_root)
        self.limits = UsageLimits(settings.limits)
        self.permissions = permissions
        self.rights = Rights(settings.security, stores, self.index, permissions)
        self._queue = queue
        self.uploads = CorpusUploads(settings, stores.corpora)
        self.accepting = asyncio.Lock()
        """Held while a run with an Idempotency-Key is accepted: of two equal requests, one finds the other's run."""
        self.storing_upload = asyncio.Lock()
        """Held while a complete upload is checked and stored: one at a time, and no upload twice."""
        self.lists: deque[Listed] = deque(maxlen=_MAX_LISTS)

    @property
    def queue(self) -> "JobQueue":
        """The queue, of a lab that has one from its beginning or is `live`."""
        if self._queue is None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, WAIT_MESSAGES["worker"])
        return self._queue

    async def live(self, *, needs_server: bool = False) -> "JobQueue":
        """Return the queue, connected by now; `needs_server`: raises SERVICE_UNAVAILABLE where no Redis runs."""
        return self.queue

    async def call(
        self,
        call: Call[PathT, QueryT, BodyT, AnswerT],
        caller: Caller,
        path: PathT | None = None,
        query: QueryT | None = None,
        body: BodyT | None = None,
    ) -> AnswerT:
        """Do an operation for a caller, with defaults for inputs that are None.

        Raises FORBIDDEN, and RATE_LIMIT_EXCEEDED above the limits of requests.
        """
        asked = Asked(call.operation, caller, path or call.path(), query or call.query(), body or call.body())
        with ExitStack() as held:
            return await self.work(call, await self.allowed(asked, held))

    async def allowed(self, asked: Asked[PathT, QueryT, BodyT], held: ExitStack) -> Asked[PathT, QueryT, BodyT]:
        """Return what is asked for, with complete ids in place of names; raises as `call` does.

        It counts as a request until `held` is closed.
        """
        path = await self._with_ids(asked)
        await self._check(asked.operation, asked.caller, path)
        for given in (path, asked.query, asked.body):
            await self.rights.check_texts(asked.caller, given)
        if asked.operation.limit == "requests" and not asked.caller.is_counted:
            held.enter_context(self.limits.request(asked.caller))
        return asked._replace(path=path)

    async def work(self, call: Call[PathT, QueryT, BodyT, AnswerT], asked: Asked[PathT, QueryT, BodyT]) -> AnswerT:
        """Do an operation that `allowed` has returned."""
        try:
            return narrowed(call.answer, await work_of(call.operation)(self, asked))
        except Needed as error:
            raise await asyncio.to_thread(error.seen_by, self.permissions.seen(asked.caller)) from None

    async def _with_ids(self, asked: Asked[PathT, QueryT, BodyT]) -> PathT:
        """Return the parameters of a path with complete ids in place of names of what the caller may see.

        Only a complete id names what is deleted; raises INVALID_INPUT for another name of it.
        """
        or_checkpoint = isinstance(asked.path, ModelPath)
        given: dict[str, object] = asked.path.model_dump()
        ids: dict[str, object] = {}
        for field, name in given.items():
            if isinstance(name, str) and field in _NAMED:
                ids[field] = await self.full_id(asked.caller, field, name, or_checkpoint=or_checkpoint)
        if asked.operation.method == "DELETE" and ids != {field: given[field] for field in ids}:
            message = f"Only a complete id names what is deleted: give {' and '.join(map(repr, ids.values()))}."
            raise AppError(ErrorCode.INVALID_INPUT, message)
        return asked.path.model_copy(update=ids)

    async def _check(self, operation: Operation, caller: Caller, path: BaseModel) -> None:
        """Raise FORBIDDEN if the caller may not do an operation, or not on what a path names."""
        role = operation.role
        given: dict[str, object] = path.model_dump()
        for field, name in given.items():
            match field, name:
                case "run_id" | "model", str():
                    await self.run(caller, name, role)
                case "group_id", str():
                    await self.check_group(caller, name, role)
                case _, str() if field in _ROWS:
                    await self.job(caller, _ROWS[field], name, role)
                case _:
                    pass
        if operation.tag == "experiments":
            self.permissions.check_experiments(caller)
        self.permissions.check(role, caller)

    async def full_id(self, caller: Caller, field: str, given: str, *, or_checkpoint: bool = False) -> str:
        """Return the id of the run, group or job that a name is meant for in a field of a path."""
        row = _ROWS.get(field)
        if row is None:
            or_group = field == "group_id"
            return await self.run_name(caller, given, or_group=or_group, or_checkpoint=or_checkpoint)
        if row.kind == "experiments":
            self.permissions.check_experiments(caller)
        store, is_visible = self.store(row), await self.visible(caller, row)
        found = await asyncio.to_thread(store.find_named, given, lambda name: is_visible(store.get(name)))
        return found.job_id

    def store(self, row: JobRow) -> JobStore[AnyStatusJob]:
        """Return the jobs of a kind."""
        return STATUS_KINDS[row.kind].store(self.settings.app.artifacts_root)

    async def visible(self, caller: Caller, row: JobRow) -> Callable[[AnyStatusJob], bool]:
        """Return a test of the jobs of a kind: whether the caller may see them."""
        if row.kind == "tokenizers" and not caller.is_admin:
            await self.index.refresh()
        return self.seen_jobs(caller, row)

    def seen_jobs(self, caller: Caller, row: JobRow) -> Callable[[AnyStatusJob], bool]:
        """Return the test that `visible` returns, as of the last refresh of the index."""
        if row.kind == "tokenizers":
            return self.seen_tokenizers(caller)
        return lambda job: caller.is_admin or self._permits(row.reads, caller, job.record())

    async def job(self, caller: Caller, row: JobRow, job_id: str, role: Role) -> AnyStatusJob:
        """Return a job; raises its kind's error for an unknown id, or FORBIDDEN if the caller has not the role for it.

        Tokenizers are for those who may see them, and changed by those who have started them.
        """
        if row.kind == "tokenizers" and role is Role.USER:
            return await self.tokenizer(caller, job_id)
        job = self.store(row).get(job_id)
        if not caller.is_admin:
            record = await asyncio.to_thread(job.record)
            if role is Role.USER and not self._permits(role, caller, record):
                role = Role.OWNER
            self.permissions.check(role, caller, record, row.word)
        return job

    def _permits(self, role: Role, caller: Caller, record: JobRecord) -> bool:
        """Return whether the caller may do to a job what needs a role; results with words are for its owner only."""
        has_words = (
            isinstance(record, BatteryRecord) and record.has_words and self.settings.security.surprisals != "all"
        )
        return self.permissions.permits(Role.OWNER if has_words and role is Role.USER else role, caller, record)

    async def run_name(self, caller: Caller, given: str, *, or_group: bool = False, or_checkpoint: bool = False) -> str:
        """Return the id that a name is meant for, as `one_run_id` does, of the runs that the caller may see."""
        exact = given if or_group or not or_checkpoint else run_of(given)
        if self.stores.runs.find(exact) is not None:
            return given
        try:
            return one_run_id(given, await self.named_runs(caller), or_group=or_group, or_checkpoint=or_checkpoint)
        except AppError as error:
            if error.code is ErrorCode.RUN_NOT_FOUND and or_group:
                return given  # of runs that the caller may not see
            raise

    async def named_runs(self, caller: Caller) -> list[Named]:
        """Return the names of the runs that the caller may see, newest first."""
        await self.index.refresh()
        seen = self.seen_runs(caller)
        return [Named(run.run_id, run.label, run.group_id, run.resumes, run.is_part) for run in seen]

    async def unfinished_ids(self, caller: Caller) -> list[str]:
        """Return the ids of the queued and running runs that the caller may see."""
        await self.index.refresh()
        return [run.run_id for run in self.seen_runs(caller) if run.is_unfinished]

    def seen_runs(self, caller: Caller) -> list[RunEntry]:
        """Return the runs that the caller may see, newest first, as of the last refresh of the index."""
        return [run for run in self.index.runs if self.permissions.may_see(caller, run)]

    def unreadable_runs(self, caller: Caller) -> Sequence[UnreadableJob]:
        """Return the runs that cannot be read, as of the last refresh of the index, if the caller may see them."""
        found = sorted(self.index.unreadable.items()) if self.permissions.sees_unreadable(caller) else []
        return [one for _, one in found]

    async def run(self, caller: Caller, name: str, role: Role = Role.USER) -> RunDirectory:
        """Return a run, also by the name of a model of it.

        Raises RUN_NOT_FOUND, or FORBIDDEN if the caller may not do what needs this role.
        """
        run = self.stores.runs.get(run_of(name))
        if not caller.is_admin:
            self.permissions.check(role, caller, await asyncio.to_thread(run.record))
        if role is Role.WEIGHTS:
            await self.rights.check_weights(caller, run)
        return run

    async def check_group(self, caller: Caller, group_id: str, role: Role = Role.USER) -> None:
        """Raise RUN_NOT_FOUND, or FORBIDDEN if the caller may not do to each run of a group what needs this role."""
        for run in await asyncio.to_thread(runs_of_group, self.stores.runs, group_id):
            await self.run(caller, run.run_id, role)

    async def manifests(self, caller: Caller, name: str, role: Role = Role.USER) -> list[RunManifest]:
        """Return the manifest of a completed run, or those of the completed runs of a group, for what needs a role.

        Raises RUN_NOT_FOUND, FORBIDDEN and RUN_NOT_READY.
        """
        if self.stores.runs.find(name) is not None:
            return [await asyncio.to_thread((await self.run(caller, name, role)).completed_manifest)]
        await self.check_group(caller, name, role)
        runs = (await self.feeds.group(name)).with_completed()
        return [await asyncio.to_thread(self.stores.runs.get(one.run_id).completed_manifest) for one in runs]

    async def measured(self, name: str, manifests: Sequence[RunManifest], split: EvalSplit) -> Measured:
        """Return a run, or those of a group, with their evaluations on a split; raises NotEvaluated and TEST_LOCKED."""
        runs = [await self._measurement(manifest, split) for manifest in manifests]
        if self.stores.runs.find(name) is not None:
            return runs[0]
        return MeasuredGroup(name, runs, (await self.feeds.group(name)).left_out())

    async def _measurement(self, manifest: RunManifest, split: EvalSplit) -> Measurement:
        status = await self.feeds.status(manifest.run_id)
        summary = summary_on(manifest, split)
        return Measurement(manifest, summary, status.tokens_per_second, looks=status.test_looks)

    async def usable_tokenizers(self, caller: Caller) -> Callable[[AnyStatusJob], bool]:
        """Return the test that `seen_tokenizers` returns, with the runs of this moment."""
        if not caller.is_admin:
            await self.index.refresh()
        return self.seen_tokenizers(caller)

    def seen_tokenizers(self, caller: Caller) -> Callable[[AnyStatusJob], bool]:
        """Return a test of tokenizers, as of the last refresh of the index.

        Those who may get its vocabulary see a tokenizer that they own, that was trained alone, or that a run has which
        they may use.
        """
        usable = {run.tokenizer_id for run in self.index.runs if self.permissions.may_see(caller, run)}

        def is_seen(job: AnyStatusJob) -> bool:
            if caller.is_admin or not isinstance(job, TokenizerDirectory):
                return caller.is_admin
            has_use = job.job_id in usable or job.is_shared or self.permissions.owns(caller, job.record())
            return has_use and self.rights.may_get_vocabulary(caller, job)

        return is_seen

    async def tokenizer(self, caller: Caller, tokenizer_id: str) -> TokenizerDirectory:
        """Return a tokenizer; raises TOKENIZER_NOT_FOUND, or FORBIDDEN if it is not for the caller."""
        tokenizer = self.stores.tokenizers.get(tokenizer_id)
        is_usable = await self.usable_tokenizers(caller)
        if not await asyncio.to_thread(is_usable, tokenizer):
            message = _("This tokenizer is only for its owner and admins: it has words of a text of somebody else.")
            raise AppError(ErrorCode.FORBIDDEN, message)
        return tokenizer

    async def submit(
        self, caller: Caller, model: str, request: Asks[ResponseT], *, request_id: str | None = None
    ) -> ResponseT:
        """Enqueue a request to a model, limited to the rights of the caller; return its response so far."""
        request = await self._allowed_inference(caller, model, request)
        return await (await self.live()).inference.submit(
            model, request, user_id=caller.discord_id, api_key=caller.key_name, request_id=request_id
        )

    async def ask(
        self,
        caller: Caller,
        model: str,
        request: Asks[ResponseT],
        *,
        request_id: str | None = None,
    ) -> ResponseT:
        """Send a request to a model, limited to the rights of the caller, and wait for its result."""
        request = await self._allowed_inference(caller, model, request)
        return await (await self.live()).inference.ask(
            model, request, user_id=caller.discord_id, api_key=caller.key_name, request_id=request_id
        )

    async def _allowed_inference(self, caller: Caller, model: str, request: Asks[ResponseT]) -> Asks[ResponseT]:
        for _field, session_id in named(request, Names.REQUEST):
            await self.chat(caller, run_of(model), session_id)
        return await self.rights.allowed_inference(caller, model, request)

    async def chat(self, caller: Caller, run_id: str, session_id: str) -> ChatHistory:
        """Return the turns of a chat of the caller; raises DATA_NOT_FOUND for another one, as if it had expired."""
        inference = (await self.live()).inference
        history = await inference.get_chat(run_id, session_id)
        if not caller.is_admin:  # before the first answer, the chat is that of the message which has its id
            last = history.turns[-1].request_id if history.turns else session_id
            if not caller.is_requester(await inference.get(ChatRecord, run_id, last)):
                raise AppError(ErrorCode.DATA_NOT_FOUND, CHAT_EXPIRED)
        return history


AnyAsked: TypeAlias = Asked[BaseModel, BaseModel, BaseModel]
Work: TypeAlias = Callable[[Lab, AnyAsked], Awaitable[object]]


def work_of(operation: Operation) -> Work:
    """Return the function that does an operation."""
    module, _, function = (operation.work or operation.tag).partition(":")
    work: Work = resolve_name(f"trainer.lab.{module}:{function or operation.name}")
    return work
