"""Keeps the artifacts folder of this machine and the object store equal, if there is an object store."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from trainer.artifacts.cleanup import CleanupReport, remove_kept
from trainer.artifacts.corpus_builds import BuildDirectory
from trainer.artifacts.kinds import KINDS_BY_NAME
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.replicas import ENDED, OPEN, FolderUnavailable, Replica, WriterChanged, join_store, unstored
from trainer.artifacts.run_ids import one_run_id
from trainer.artifacts.runs import RunDirectory, RunStore, in_use
from trainer.artifacts.stored_corpora import delete_corpus, fetch_corpus, fetch_named_corpus, name_corpus, store_corpus
from trainer.config.settings import Settings
from trainer.contracts.base import KindName
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.data.corpora import CorpusStore

if TYPE_CHECKING:
    from trainer.artifacts.object_store import ObjectStore

T = TypeVar("T")

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_PUSH_SECONDS = 1.0
_ALL_SECONDS = 600.0


class Replication:
    """The copies of this machine's runs, tokenizers and experiments in the object store of the settings.

    Without an object store, all machines mount the artifacts folder, and no method does anything. All methods raise
    SERVICE_UNAVAILABLE if the store does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._root = settings.app.artifacts_root
        self._corpora = CorpusStore(settings).stored
        self._looks = LookLedger.of(settings)
        self._objects = _object_store(settings)
        self._open_tags: dict[str, str] = {}
        self._watched: set[str] = set()
        """Keys of open heads, real or not, that the next refresh looks at."""
        self._all_at = -_ALL_SECONDS

    @property
    def is_on(self) -> bool:
        return self._objects is not None

    async def join(self) -> None:
        """Make the artifacts folder one of those that share the store; raises CONFIG_INVALID if it cannot be."""
        if self._objects is not None:
            await asyncio.to_thread(join_store, self._objects, self._root)

    async def check(self) -> None:
        """Raise CONFIG_INVALID for a store that cannot keep two writers of a folder apart."""
        if self._objects is not None:
            await asyncio.to_thread(self._objects.check_conditions)

    async def publish(self, kind: KindName, item_id: str) -> None:
        """Store what this machine has accepted, before it is enqueued."""
        await self._with(kind, item_id, Replica.publish)
        self.watch(kind, item_id)

    def watch(self, kind: KindName, item_id: str) -> None:
        """Let the next `refresh` look at a folder, which may have ended before that."""
        if self._objects is not None:
            self._watched.add(f"{OPEN}{kind}/{item_id}")

    async def fetch(self, kind: KindName, item_id: str, *, with_weights: bool = False) -> None:
        """Bring a folder to the stored state, with weights and checkpoints if it is wanted whole.

        A folder that is not stored stays as it is.
        """
        with _if_stored():
            await self._with(kind, item_id, partial(Replica.pull, with_weights=with_weights))

    async def write(self, kind: KindName, item_id: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do work that writes a folder as its only writer, store what changes in it meanwhile, and return its result.

        Raises WriterChanged, after cancelling the work, if another machine becomes the writer.
        """
        if self._objects is None:
            return await work()
        replica = await asyncio.to_thread(Replica, self._objects, self._root, kind, item_id)
        await asyncio.to_thread(replica.claim)
        await self.share_looks()
        working, has_ended = asyncio.ensure_future(work()), asyncio.Event()
        working.add_done_callback(lambda _: has_ended.set())
        pushing = asyncio.create_task(_push_until(has_ended, replica))
        try:
            await asyncio.wait([working, pushing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            await asyncio.wait([working, pushing])
        try:
            await self.share_looks()
        except AppError as error:  # the next call shares them
            log.warning("looks_not_shared", error=str(error))
        pushing.result()
        return working.result()

    async def share_looks(self) -> None:
        """Let all machines know the looks at test splits that each has counted."""
        if self._objects is not None:
            await asyncio.to_thread(self._looks.share, self._objects)

    async def is_open(self, kind: KindName, item_id: str) -> bool:
        """Return True if this machine has not seen the end of a folder in the store yet."""
        objects = self._objects
        return objects is not None and (await asyncio.to_thread(Replica, objects, self._root, kind, item_id)).is_open

    async def request_cancel(self, kind: KindName, item_id: str) -> None:
        await self._with(kind, item_id, Replica.request_cancel)

    async def delete(self, kind: KindName, item_id: str) -> None:
        await self._with(kind, item_id, Replica.delete)

    async def store_corpora(self, corpora: CorpusStore, references: Iterable[CorpusRef]) -> None:
        """Store corpora under the hash of their content, and the hash under their name."""
        if self._objects is not None:
            for reference in references:
                path = await asyncio.to_thread(corpora.find, reference.name)
                await asyncio.to_thread(store_corpus, self._objects, reference, path)

    async def delete_corpus(self, name: str, sha256: str) -> None:
        """Delete a corpus by its name, and its content unless another name has it."""
        if self._objects is not None:
            await asyncio.to_thread(delete_corpus, self._objects, name, sha256)

    async def store_corpus(self, corpora: CorpusStore, name: str | None) -> None:
        """Store the corpus that a request names, if it names one; raises DATA_NOT_FOUND."""
        if self._objects is not None and name is not None:
            await self.store_corpora(corpora, [await corpora.describe(name)])

    async def fetch_corpora(self, references: Iterable[CorpusRef], *, by_name: bool = False) -> None:
        """Download corpora that this machine lacks, and let them be found by their names too if it is wanted.

        A corpus that is not stored may be on this machine by its name.
        """
        if self._objects is not None:
            for reference in references:
                await asyncio.to_thread(fetch_corpus, self._objects, reference.sha256, self._corpora)
                if by_name:
                    await asyncio.to_thread(name_corpus, self._corpora, reference.name, reference.sha256)

    async def fetch_read_text(self, effective: EffectiveRequest) -> None:
        """Download the corpora of a run and of its ancestors that this machine lacks."""
        await self.fetch_corpora(effective.corpora)
        parent_id = effective.parent_run_id
        if self._objects is not None and parent_id is not None:
            await self.fetch("models", parent_id)
            parent = await asyncio.to_thread(RunStore(self._root).find, parent_id)
            if parent is not None:
                await self.fetch_read_text(parent.record().effective)

    async def fetch_corpus(self, name: str | None) -> None:
        """Download the corpus that a request names, if it names one that is stored."""
        if self._objects is not None and name is not None:
            await asyncio.to_thread(fetch_named_corpus, self._objects, name, self._corpora)

    async def refresh(self, *, with_ended: bool = False) -> list[str]:
        """Bring the folders of unfinished work, and of work that has just ended, to the stored state.

        Return the ids of those that have changed. With `with_ended`, the first call and one every ten minutes look at
        all folders, and store those that are not stored yet.
        """
        objects = self._objects
        if objects is None:
            return []
        watched = set(self._watched)  # work that is watched from now on is for the next call
        tags = await asyncio.to_thread(objects.tags, OPEN)
        ended = sorted({*self._open_tags, *watched} - set(tags))
        changed_keys = [key for key, tag in tags.items() if self._open_tags.get(key) != tag] + ended
        if with_ended and time.monotonic() > self._all_at + _ALL_SECONDS:
            await self._publish_missing()
            stored = await asyncio.to_thread(objects.tags, ENDED)
            changed_keys += [key for key, tag in stored.items() if await self._tag_here(objects, key) != tag]
            self._all_at = time.monotonic()
        ids: list[str] = []
        for key in changed_keys:
            kind, item_id = _kind_and_id(key)
            try:
                await self.fetch(kind, item_id)
                if kind == "models":
                    await self._fetch_tokenizer(item_id)
                if kind == "corpus_builds":
                    await self.fetch_corpora(BuildDirectory(self._root / kind / item_id).corpora(), by_name=True)
            except FolderUnavailable as error:  # the next call tries again; the others do not wait for it
                log.warning("refresh_failed", names=item_id, error=str(error))
                tags.pop(key, None)
                tags |= {key: tag for key, tag in self._open_tags.items() if key == f"{OPEN}{kind}/{item_id}"}
                continue
            ids.append(item_id)
        if ids:
            await self.share_looks()
        self._open_tags = tags
        self._watched -= watched
        return ids

    async def _fetch_tokenizer(self, run_id: str) -> None:
        """Download the tokenizer that an ended run has trained."""
        run = RunDirectory(self._root / "models" / run_id)
        manifest = await asyncio.to_thread(run.manifest)
        if manifest is not None and manifest.tokenizer is not None:
            await self.fetch("tokenizers", manifest.tokenizer.id)

    async def _tag_here(self, objects: "ObjectStore", key: str) -> str | None:
        return (await asyncio.to_thread(Replica, objects, self._root, *_kind_and_id(key))).etag

    async def _publish_missing(self) -> None:
        """Store the folders of this machine that were made without the store, or by a process that was killed."""
        for kind in KINDS_BY_NAME:
            for item_id in await asyncio.to_thread(unstored, self._root, kind):
                log.info("folder_stored", names=item_id)
                await self.publish(kind, item_id)

    async def _with(self, kind: KindName, item_id: str, call: Callable[[Replica], None]) -> None:
        objects = self._objects
        if objects is not None:
            await asyncio.to_thread(lambda: call(Replica(objects, self._root, kind, item_id)))


def full_run_id(
    settings: Settings, given: str, place: str = "", *, or_group: bool = False, or_checkpoint: bool = False
) -> str:
    """Return the id that a name is meant for, as `one_run_id` does, of the runs here and in the object store."""
    runs, objects = RunStore(settings.app.artifacts_root), _object_store(settings)
    if runs.find(given) is not None:
        return given
    unavailable: list[FolderUnavailable] = []
    if objects is not None:
        heads = (key for state in (OPEN, ENDED) for key in objects.tags(f"{state}models/"))
        for run_id in {_kind_and_id(key)[1] for key in heads}.difference(runs.ids()):
            try:
                with _if_stored():
                    Replica(objects, settings.app.artifacts_root, "models", run_id).pull()
            except FolderUnavailable as error:  # names of others do not wait for it
                unavailable.append(error)
    try:
        return one_run_id(given, runs.named(), place, or_group=or_group, or_checkpoint=or_checkpoint)
    except AppError as error:
        if unavailable and error.code is ErrorCode.RUN_NOT_FOUND:  # the name may be that of one of them
            raise unavailable[0] from None
        raise


def complete_run(settings: Settings, run_id: str, *, with_weights: bool = True) -> RunDirectory:
    """Return a run with its files on this disk, `with_weights` those of its checkpoints too; raises RUN_NOT_FOUND."""
    objects = _object_store(settings)
    if objects is not None:
        with _if_stored():
            Replica(objects, settings.app.artifacts_root, "models", run_id).pull(with_weights=with_weights)
    return RunStore(settings.app.artifacts_root).get(run_id)


def stored_check(settings: Settings) -> Callable[[RunDirectory], bool] | None:
    """Return a function that says whether the object store has all files of a run; None without an object store."""
    objects, root = _object_store(settings), settings.app.artifacts_root
    if objects is None:
        return None
    verifies = settings.app.cleanup.verify_upload
    return lambda run: Replica(objects, root, "models", run.run_id).is_stored(verifies=verifies)


async def remove_kept_checkpoints(settings: Settings, run_id: str, *, dry_run: bool = False) -> CleanupReport:
    """Remove the kept checkpoints of a run, here and in the object store; raises the errors of `remove_kept`."""
    remove = partial(asyncio.to_thread, remove_kept, settings, run_id, dry_run=dry_run)
    try:
        return await Replication(settings).write("models", run_id, remove)
    except WriterChanged:
        raise in_use(run_id) from None


def _object_store(settings: Settings) -> "ObjectStore | None":
    if not settings.object_store.url:
        return None
    from trainer.artifacts.object_store import ObjectStore  # its library takes 4 MB

    return ObjectStore(settings.object_store)


@contextmanager
def _if_stored() -> Iterator[None]:
    """Go on after an error for what is not in the store: it may be on this disk only."""
    try:
        yield
    except AppError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise


async def _push_until(has_ended: asyncio.Event, replica: Replica) -> None:
    """Store what changes in a folder, and take requests to cancel, until the work on it has ended.

    Raises WriterChanged, and SERVICE_UNAVAILABLE if the end could not be stored.
    """
    while not has_ended.is_set():
        try:
            await asyncio.to_thread(partial(replica.push, is_last=False))
            await asyncio.to_thread(replica.take_cancel)
        except (AppError, OSError) as error:
            log.warning("push_failed", names=replica.item_id, error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PUSH_SECONDS):
                await has_ended.wait()
    await asyncio.to_thread(replica.push)


def _kind_and_id(key: str) -> tuple[KindName, str]:
    """Return the kind and the id of the folder of a head; raises ValueError for another key."""
    _, kind, item_id = key.split("/")
    return next(known for known in KINDS_BY_NAME if known == kind), item_id
