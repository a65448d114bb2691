"""Folders of runs, tokenizers and experiments in an object store, each with one writer at a time.

A folder has a head: an object with the folder's files, the machine that writes it, and a counter. A machine becomes the
writer by raising the counter, in a write that fails if the head has changed meanwhile. A writer that was cut off
notices at its next write that the counter is not its own, and has changed nothing. The head of an unfinished folder
lies below `open/`, so that a list of these is short; that of an ended one below `ended/`.
"""

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import file_digest, sha256
from io import BufferedReader, FileIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, NamedTuple

import structlog
from pydantic import AfterValidator, Field

from trainer.artifacts.artifacts_id import artifacts_id, own_artifacts_id
from trainer.artifacts.job_folder import JOB_ID, REQUEST_FILE
from trainer.artifacts.kinds import KINDS_BY_NAME
from trainer.artifacts.runs import ANNOTATIONS_FILE, OPEN_GROUP_FILE, RunStore
from trainer.contracts.base import Frozen, KindName, Sha256, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.text import shown_name
from trainer.system.files import (
    DISK,
    BrokenFile,
    open_regular,
    sha256_of,
    try_lock,
    whole_record,
    write_atomically,
    written_aside,
)

if TYPE_CHECKING:
    from trainer.artifacts.object_store import ObjectStore

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

OPEN, ENDED = "open/", "ended/"
_COPY = ".head.json"
_OF_MACHINE = frozenset(("lock", "dm.json", "group_dm.json", OPEN_GROUP_FILE, "webhooks.json"))
"""Files that each machine has for itself: its locks, and the ledgers of the bot."""
_HEAVY = (".safetensors", ".pt")
_GROWING = ".jsonl"
_ATTEMPTS = 10
_OFTEN_BYTES, _SELDOM_SECONDS = 1 << 18, 15.0
"""A growing file above this size is not stored more often than this, because each time all of it is sent."""
_MACHINE = "machine"
_TELLING = ("manifest.json", "events.jsonl", "SHA256SUMS", "result.json", REQUEST_FILE)
"""Files that tell of others, in the order in which they are to appear: the event of a run's end after its manifest."""


class WriterChanged(Exception):
    """Another machine has become the writer of a folder."""


class FolderUnavailable(AppError):
    """A stored folder cannot be brought to this disk now; the next try may find it so."""


def _safe_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path != "/".join(parts) or not parts or any(part.startswith((".", "/")) for part in parts) or "\0" in path:
        raise ValueError("must be a path within its folder")
    return path


class StoredFile(Frozen):
    """A file of a folder: its path there, and the key of the object with its content.

    The object of a growing file may have become longer: the file is its first `bytes`.
    """

    path: Annotated[str, AfterValidator(_safe_path)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    key: str
    modified_ns: int = 0
    """The time of the file in ns since 1970, which lists go by."""


class Head(Frozen):
    """The files of a folder, as its writer has last stored them."""

    counter: Annotated[int, Field(ge=1)]
    """Grows with each new writer."""
    writer: str
    """The machine that may write: the id of its artifacts folder."""
    has_ended: bool
    files: tuple[StoredFile, ...]


class _Copy(Frozen):
    """The head that a machine's folder was last equal to."""

    key: str
    etag: str
    head: Head


class _Seen(NamedTuple):
    size: int
    modified_ns: int
    stored: StoredFile
    at: float


class Replica:
    """A folder on this machine and in the object store.

    Its methods wait for the store, and raise SERVICE_UNAVAILABLE if it does not answer.
    """

    def __init__(self, objects: "ObjectStore", artifacts_root: Path, kind: KindName, item_id: str) -> None:
        """Raises NOT_FOUND for an id that cannot be a folder."""
        if not JOB_ID.fullmatch(item_id):
            raise _not_stored(shown_name(item_id))
        self.path = artifacts_root / kind / item_id
        self.kind: KindName = kind
        self.item_id = item_id
        self._objects = objects
        self._machine = own_artifacts_id(artifacts_root, _MACHINE)
        name = f"{kind}/{item_id}"
        self._files, self._cancel = f"files/{name}", f"cancel/{name}"
        self._open, self._ended = f"{OPEN}{name}", f"{ENDED}{name}"
        self._copy = whole_record(self.path / _COPY, _Copy)
        self._seen: dict[str, _Seen] = {}

    @property
    def etag(self) -> str | None:
        """The tag of the head that the folder was last equal to."""
        return None if self._copy is None else self._copy.etag

    @property
    def is_open(self) -> bool:
        """True if the end of the folder was not in the store when the folder was last equal to the stored state."""
        return self._copy is not None and not self._copy.head.has_ended

    def publish(self) -> None:
        """Store the folder of new or repeated work, with this machine as its writer.

        Raises SERVICE_UNAVAILABLE if another machine has done so at the same time.
        """
        stored = self._stored_head()
        if stored is not None and stored.head.writer == self._machine and not stored.head.has_ended:
            return
        counter = 1 if stored is None else stored.head.counter + 1
        files = self._store_files(counter)
        head = Head(counter=counter, writer=self._machine, has_ended=self._has_ended(), files=files)
        is_open = stored is not None and stored.key == self._open
        copy = self._replace_head(head, self._open, stored.etag if stored is not None and is_open else None)
        if copy is None:
            again = self._stored_head()
            if again is not None and (again.head.writer, again.head.counter) == (self._machine, counter):
                return  # another process or thread of this machine was faster
            message = "Another machine has just stored the same: try again in a minute."
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)
        if stored is not None and not is_open:
            self._objects.delete([self._ended])
        if head.has_ended:
            self._keep_copy(self._settle_stored(copy))

    def claim(self) -> None:
        """Make this machine the writer, with everything that is stored on its disk.

        Raises NOT_FOUND if the folder is not stored, and WriterChanged if other machines do the same, or if a process
        of this machine still writes the folder.
        """
        for _ in range(_ATTEMPTS):
            stored = self._stored_head()
            if stored is None:
                raise _not_stored(self.item_id)
            if not self._take(stored, with_weights=True):
                raise WriterChanged
            head = changed(stored.head, counter=stored.head.counter + 1, writer=self._machine)
            if self._replace_head(head, stored.key, stored.etag):
                return
        raise WriterChanged

    def push(self, *, is_last: bool = True) -> bool:
        """Store what has changed in the folder; return whether it had. Raises WriterChanged.

        The end of the folder is stored by the last call only, after the work that its writer does at the end; another
        call during which the folder ends stores nothing.
        """
        copy = self._copy
        if copy is None or copy.head.writer != self._machine:
            raise WriterChanged
        has_ended = self._has_ended()
        if has_ended and not is_last:
            return False
        files = self._store_files(copy.head.counter, is_last=has_ended)
        if not is_last and self._has_ended():  # the events among them may say so, without the manifest
            return False
        head = changed(copy.head, files=files, has_ended=has_ended)
        new = copy if head == copy.head else self._replace_head(head, copy.key, copy.etag)
        if new is None:
            raise WriterChanged
        self._objects.delete({file.key for file in copy.head.files} - {file.key for file in files})
        if has_ended and copy.key == self._open:
            self._keep_copy(self._settle_stored(new))
        return head != copy.head

    def pull(self, *, with_weights: bool = False) -> None:
        """Bring the folder on this disk to the stored state, unless a process of this machine writes it.

        Without `with_weights`, weights and checkpoints stay in the store, but for the states of kept checkpoints, by
        which these are named. Raises NOT_FOUND if the folder is not stored, and FolderUnavailable while another process
        of this machine is downloading it for the first time.
        """
        stored = self._stored_head()
        if stored is None:
            raise _not_stored(self.item_id)
        if stored.head.has_ended and stored.key == self._open:
            self._settle_stored(stored)
        if not self._take(stored, with_weights=with_weights) and not (self.path / REQUEST_FILE).exists():
            message = f"This machine is downloading '{self.item_id}' from the object store: try again in a minute."
            raise FolderUnavailable(ErrorCode.SERVICE_UNAVAILABLE, message)

    def is_stored(self, *, verifies: bool = True) -> bool:
        """Return True if every file of an ended folder is in the store as it is on this disk.

        With `verifies`, the store confirms each object, too.
        """
        stored = self._stored_head()
        if stored is None or not stored.head.has_ended:
            return False
        known = {file.path: file for file in stored.head.files}
        for name in self._names():
            file = known.get(name)
            if file is None or file.sha256 != sha256_of(self.path / name):
                return False
            if verifies and not self._objects.exists(file.key):
                return False
        return True

    def delete(self) -> None:
        """Delete the folder from the store."""
        self._objects.delete([self._open, self._ended, self._cancel])
        self._objects.delete(self._objects.tags(f"{self._files}/"))

    def request_cancel(self) -> None:
        """Ask the machine that writes the folder to cancel its work."""
        self._objects.put(self._cancel, b"")

    def take_cancel(self) -> None:
        """Write a request to cancel that another machine has stored into the folder."""
        cancel = self.path / "cancel"
        if not cancel.exists() and self._objects.exists(self._cancel):
            DISK.write(cancel, b"")
            DISK.sync(self.path)

    def _has_ended(self) -> bool:
        jobs = KINDS_BY_NAME[self.kind].store(self.path.parent.parent)
        return not jobs.directory(self.item_id).is_unfinished()

    def _stored_head(self) -> _Copy | None:
        for key in (self._open, self._ended, self._open):  # it may move between two reads
            found = self._objects.get(key)
            if found is not None:
                return _Copy(key=key, etag=found.etag, head=Head.model_validate_json(found.data))
        return None

    def _replace_head(self, head: Head, key: str, etag: str | None) -> _Copy | None:
        """Write the head if its version has a tag, or if there is none; return None if another machine was faster.

        A write whose answer was lost counts as ours: the head says so.
        """
        data = head.model_dump_json().encode()
        new = self._objects.put_new(key, data) if etag is None else self._objects.replace(key, data, etag)
        if new is None:
            found = self._objects.get(key)
            if found is None or found.data != data:
                return None
            new = found.etag
        copy = _Copy(key=key, etag=new, head=head)
        self._keep_copy(copy)
        return copy

    def _settle_stored(self, stored: _Copy) -> _Copy:
        """Move the head of an ended folder from the open ones to the ended ones."""
        etag = self._objects.put_new(self._ended, stored.head.model_dump_json().encode())
        self._objects.delete([self._open, self._cancel])
        return changed(stored, key=self._ended, etag=stored.etag if etag is None else etag)

    def _is_writer(self, head: Head) -> bool:
        """Return True if this folder is the one that is being written: what it has beyond the head is newer."""
        copy = self._copy
        return copy is not None and (head.writer, head.counter) == (self._machine, copy.head.counter)

    def _take(self, stored: _Copy, *, with_weights: bool) -> bool:
        """Bring the folder on this disk to a state; return False if a process of this machine writes it."""
        head, is_writer = stored.head, self._is_writer(stored.head)
        if is_writer and not head.has_ended:
            return True
        DISK.make_folder(self.path)
        lock = try_lock(self.path / "lock")
        if lock is None:
            return is_writer
        with lock:
            for _ in range(_ATTEMPTS):
                try:
                    self._download(head, with_weights=with_weights)
                    break
                except (FileNotFoundError, BrokenFile):  # the writer has replaced it meanwhile
                    again = self._stored_head()
                    if again is None:
                        raise _not_stored(self.item_id) from None
                    stored, head = again, again.head
            else:
                log.error("stored_folder_damaged", key=stored.key)
                message = f"The copy of '{self.item_id}' in the object store is damaged or changes all the time."
                raise FolderUnavailable(ErrorCode.SERVICE_UNAVAILABLE, message)
            if not is_writer:
                self._remove_others(head)
            self._keep_copy(stored)
        return True

    def _download(self, head: Head, *, with_weights: bool) -> None:
        """Download what this disk lacks, a file that tells of others after these."""
        known = {} if self._copy is None else {file.path: file.sha256 for file in self._copy.head.files}
        for file in sorted(head.files, key=_turn):
            target = self.path / file.path
            is_wanted = with_weights or not _is_heavy(file.path)
            if is_wanted and not (known.get(file.path) == file.sha256 and _size(target) == file.bytes):
                DISK.make_folder(target.parent)
                self._download_file(file, target)
                if file.path in (ANNOTATIONS_FILE, "manifest.json"):  # which an unlock changes after the end
                    RunStore(self.path.parent.parent).mark_annotated()

    def _download_file(self, file: StoredFile, target: Path) -> None:
        """Download a file under a temporary name, check it, and give it its name."""
        with written_aside(target) as temporary:
            with temporary.open("wb") as content:
                self._objects.download(file.key, content, file.bytes)
                content.flush()
                DISK.flush(content.fileno())
            if temporary.stat().st_size != file.bytes or sha256_of(temporary) != file.sha256:
                raise BrokenFile(f"'{file.path}' is not what was stored.")
            if file.modified_ns:
                os.utime(temporary, ns=(file.modified_ns, file.modified_ns))

    def _remove_others(self, head: Head) -> None:
        """Remove what a writer that lost the folder has left here."""
        stored = {file.path for file in head.files}
        for name in self._names():
            if name not in stored and name != "cancel":
                DISK.remove(self.path / name)
        folders = {parent for path in self.path.glob("*/**") for parent in [path] if path.is_dir()}
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                DISK.remove_folder(folder)

    def _names(self) -> list[str]:
        """Return the paths of all files that belong into the store, first those that tell least of the others."""
        found = (path.relative_to(self.path) for path in self.path.rglob("*") if path.is_file())
        names = (path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
        return sorted((name for name in names if name not in _OF_MACHINE), key=_rank)

    def _store_files(self, counter: int, *, is_last: bool = False) -> tuple[StoredFile, ...]:
        """Store the files that have changed, and return all of them as they are at one time.

        A file that is open keeps its content while it is removed or replaced. Raises SERVICE_UNAVAILABLE if the folder
        changes all the time.
        """
        for _ in range(_ATTEMPTS):
            with ExitStack() as opened:
                names = self._names()
                # a checkpoint counts the lines of the growing files
                is_all = is_last or any(_is_heavy(name) and name not in self._seen for name in names)
                try:
                    files = {name: self._open_changed(name, opened, is_all) for name in names}
                except FileNotFoundError:  # a checkpoint was removed meanwhile
                    continue
                if self._names() == names:
                    return tuple(self._store_file(name, file, counter) for name, file in files.items())
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"The files of '{self.item_id}' change too fast to be stored.")

    def _open_changed(self, name: str, opened: ExitStack, is_all: bool) -> "StoredFile | BufferedReader[FileIO]":
        """Open a file, unless it is as it was when it was stored last, or has just been stored and grows."""
        seen, state = self._seen.get(name), (self.path / name).stat()
        if seen is not None:
            is_same = (seen.size, seen.modified_ns) == (state.st_size, state.st_mtime_ns)
            is_large = name.endswith(_GROWING) and state.st_size > _OFTEN_BYTES
            if is_same or (is_large and not is_all and time.monotonic() < seen.at + _SELDOM_SECONDS):
                return seen.stored
        return opened.enter_context(BufferedReader(open_regular(self.path / name)))

    def _store_file(self, name: str, file: "StoredFile | BufferedReader[FileIO]", counter: int) -> StoredFile:
        if isinstance(file, StoredFile):
            return file
        state = os.fstat(file.fileno())
        known = self._known(name)
        if name.endswith(_GROWING):
            stored = self._store_growing(name, file.read(state.st_size), counter, known)
        else:
            digest = file_digest(file, "sha256").hexdigest()
            key = f"{self._files}/{counter}/{digest}"
            modified_ns = state.st_mtime_ns
            stored = StoredFile(path=name, bytes=state.st_size, sha256=digest, key=key, modified_ns=modified_ns)
            if known is not None and known.sha256 == digest:
                stored = known
            else:
                file.seek(0)
                self._objects.put(key, file)
        self._seen[name] = _Seen(state.st_size, state.st_mtime_ns, stored, time.monotonic())
        return stored

    def _store_growing(self, name: str, data: bytes, counter: int, known: StoredFile | None) -> StoredFile:
        """Store a file that grows under the same key again, unless it was cut: heads refer to beginnings of it."""
        digest = sha256(data).hexdigest()
        if known is not None and known.sha256 == digest:
            return known
        own = f"{self._files}/{counter}/"
        is_longer = known is not None and sha256(data[: known.bytes]).hexdigest() == known.sha256
        is_own = known is not None and is_longer and known.key.startswith(own)
        key = known.key if known is not None and is_own else f"{own}{secrets.token_hex(8)}{_GROWING}"
        self._objects.put(key, data)
        return StoredFile(path=name, bytes=len(data), sha256=digest, key=key)

    def _known(self, name: str) -> StoredFile | None:
        seen = self._seen.get(name)
        if seen is not None:
            return seen.stored
        files: Sequence[StoredFile] = () if self._copy is None else self._copy.head.files
        return next((file for file in files if file.path == name), None)

    def _keep_copy(self, copy: _Copy) -> None:
        self._copy = copy
        write_atomically(self.path / _COPY, copy.model_dump_json().encode())


def join_store(objects: "ObjectStore", artifacts_root: Path) -> None:
    """Make an artifacts folder one of those that share a store; raises CONFIG_INVALID if it belongs to others."""
    stored = objects.get("installation")
    if stored is None:
        objects.put_new("installation", (artifacts_id(artifacts_root) or secrets.token_hex(8)).encode())
        stored = objects.get("installation")
    shared = "" if stored is None else stored.data.decode()
    if own_artifacts_id(artifacts_root, new_id=shared) != shared:
        raise AppError(
            ErrorCode.CONFIG_INVALID,
            "The folder of APP__ARTIFACTS_ROOT and the store of OBJECT_STORE__URL belong to different installations:"
            " set APP__ARTIFACTS_ROOT to a new folder.",
        )


def unstored(artifacts_root: Path, kind: KindName) -> list[str]:
    """Return the ids of the folders of a kind that this machine has not stored yet."""
    requests = (artifacts_root / kind).glob(f"[a-z0-9]*/{REQUEST_FILE}")
    return [request.parent.name for request in requests if not (request.parent / _COPY).exists()]


def _not_stored(item_id: str) -> AppError:
    return AppError(ErrorCode.NOT_FOUND, f"The object store has no '{item_id}'.")


def _rank(name: str) -> tuple[int, str]:
    """Sort files that grow before the others, and the end of a run last: an order of writing is kept in each copy."""
    last = ("manifest.json", "SHA256SUMS", "result.json")
    if name in last:
        return 2 + last.index(name), name
    return int(not name.endswith(_GROWING)), name


def _turn(file: StoredFile) -> int:
    """Return a file's place in the order of downloads; files that tell of no others come first, in any order."""
    return 1 + _TELLING.index(file.path) if file.path in _TELLING else 0


def _is_heavy(name: str) -> bool:
    is_to_resume = name.startswith("checkpoints/") and not name.startswith("checkpoints/scheduled/")
    return is_to_resume or name.endswith(_HEAVY)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.exists() else None
