"""Uploads of corpora: their portions on disk, and the checks that turn a complete upload into a corpus.

The size of the file `content` is the offset of an upload, so portions survive a killed server. The hashes of the
files are checked at the end. Memory does not grow with the size of a corpus.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from hashlib import file_digest, sha256
from io import FileIO
from pathlib import Path
from threading import Lock

from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.corpora import UploadedFile, UploadRecord, UploadRequest, UploadStatus
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.data.corpora import CorpusStore, other_corpus
from trainer.data.corpus_overview import corpus_overview
from trainer.data.tables import as_text
from trainer.data.text import (
    CONVERTED_SUFFIXES,
    SUFFIXES,
    check_text_name,
    clean_corpus_name,
    clean_file_name,
    corpus_sha256,
    is_about,
    shown_name,
)
from trainer.system.files import (
    DISK,
    BrokenFile,
    filled_folder,
    folder_time,
    open_regular,
    read_record,
    storage_errors,
    take_lock,
    write_atomically,
)

FOLDER = "uploads"
"""Folder of the uploads below the artifacts folder."""
_RECORD, _CONTENT, _FILES = "record.json", "content", "files"
_COPIED_BYTES = 1 << 20


class WrongOffset(AppError):
    """A portion that does not begin where the upload ends."""

    def __init__(self, offset: int) -> None:
        super().__init__(ErrorCode.CONFLICT, f"The server has {offset:,} bytes of this upload: continue there.")
        self.offset = offset


class CorpusUploads:
    """The uploads of an installation. An equal request of the same client names the same upload."""

    def __init__(self, settings: Settings, corpora: CorpusStore) -> None:
        self._folder = settings.app.artifacts_root / FOLDER
        self._limits = settings.limits
        self._corpora = corpora
        self._starting = Lock()

    def start(self, request: UploadRequest, owner: str | None, *, is_limited: bool) -> UploadStatus:
        """Start an upload, or return the state of the one that was started before, complete or not.

        A corpus that the same client has sent before is not sent again. Raises INVALID_INPUT, UNSUPPORTED_MEDIA_TYPE,
        PAYLOAD_TOO_LARGE, CONFLICT for the name of another corpus, RATE_LIMIT_EXCEEDED above the number of unfinished
        uploads if it `is_limited`, and INSUFFICIENT_STORAGE.
        """
        request = self._checked(request)
        upload_id = sha256(f"{owner}\n{request.model_dump_json()}".encode()).hexdigest()[:32]
        with self._starting:
            content = _content_sha256(request)
            known = None if content is None else self._sent_before(request, content, owner)
            if known is not None:
                stored = UploadRecord(owner=owner, request=request, corpus=known, sha256=content)
                return self._complete(upload_id, stored, known)
            try:
                record = self._record(upload_id, owner)
            except AppError:
                self._check_size(request)
                self._create(upload_id, UploadRecord(owner=owner, request=request), is_limited=is_limited)
                return self.status(upload_id, owner)
            if record.corpus is not None and not self._is_sent(record):
                DISK.remove_folder(self._folder / upload_id)
                self._create(upload_id, UploadRecord(owner=owner, request=request), is_limited=is_limited)
            return self.status(upload_id, owner)

    def status(self, upload_id: str, owner: str | None) -> UploadStatus:
        """Return the state of an upload; raises DATA_NOT_FOUND for an unknown or another client's one."""
        record = self._record(upload_id, owner)
        if record.corpus is not None:
            return self._complete(upload_id, record, record.corpus)
        offset = (self._folder / upload_id / _CONTENT).stat().st_size
        return UploadStatus(upload_id=upload_id, bytes=record.request.total_bytes, offset=offset)

    def append(self, upload_id: str, offset: int, data: bytes) -> None:
        """Append bytes to an upload; raises WrongOffset if another connection has appended some."""
        with self._opened(upload_id) as file:
            take_lock(file.fileno(), fcntl.LOCK_EX)
            size = os.fstat(file.fileno()).st_size
            if size != offset:
                raise WrongOffset(size)
            while data:  # a disk that is almost full takes a part of it
                data = data[file.write(data) :]

    def sync(self, upload_id: str) -> None:
        """Make what has arrived durable."""
        with self._opened(upload_id) as file:
            DISK.flush(file.fileno())

    def finish(self, upload_id: str, owner: str | None) -> UploadStatus:
        """Check the content of a complete upload and store it as a corpus; one call at a time.

        An upload with a wrong content is deleted. Raises INVALID_INPUT, CORPUS_EMPTY, PAYLOAD_TOO_LARGE, CONFLICT, and
        for a full disk INSUFFICIENT_STORAGE, which leaves the upload for another try.
        """
        record = self._record(upload_id, owner)
        if record.corpus is None:
            folder = self._folder / upload_id
            scratch = folder / _FILES
            DISK.remove_folder(scratch)  # of a killed server
            try:
                with storage_errors("the corpus could not be stored"):
                    scratch.mkdir()
                    record = self._stored(record, folder / _CONTENT, scratch)
                    write_atomically(folder / _RECORD, record.model_dump_json().encode())
                    DISK.remove(folder / _CONTENT)
            except AppError as error:
                if error.code.error_class is ErrorClass.USER_INPUT:
                    DISK.remove_folder(folder)
                raise
            finally:
                with suppress(OSError):
                    DISK.remove_folder(scratch)
        return self.status(upload_id, owner)

    def delete(self, upload_id: str, owner: str | None) -> None:
        """Delete an upload with what has arrived; a corpus that it has become stays. Raises DATA_NOT_FOUND."""
        self._record(upload_id, owner)
        DISK.remove_folder(self._folder / upload_id)

    def _opened(self, upload_id: str) -> FileIO:
        try:
            return open_regular(self._folder / upload_id / _CONTENT, "ab")
        except FileNotFoundError:
            raise _unknown() from None

    def _checked(self, request: UploadRequest) -> UploadRequest:
        """Return the request with a clean name; raises AppError for files that cannot be a corpus."""
        if request.total_bytes > self._limits.upload_bytes:
            raise AppError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"The corpus has {request.total_bytes:,} bytes; at most {self._limits.upload_bytes:,} can be uploaded"
                " (LIMITS__UPLOAD_BYTES).",
            )
        for file in request.files:
            check_text_name(file.name)
        if len(request.files) > 1:
            names = [file.name for file in request.files]
            if len({*names}) < len(names) or not all(Path(name).suffix.lower() in SUFFIXES for name in names):
                message = "The files of a folder must have different names that end in .txt or .text."
                raise AppError(ErrorCode.INVALID_INPUT, message)
        if request.name is None:
            return request
        name = clean_corpus_name(request.name)
        if name is None:
            raise AppError(ErrorCode.INVALID_INPUT, "`name` must have a letter or a digit.")
        return changed(request, name=name)

    def _check_size(self, request: UploadRequest) -> None:
        """Raise CONFLICT before a text is sent whose name is that of a corpus of another size."""
        name, [file, *more] = request.name, request.files
        if name is None or more or Path(file.name).suffix.lower() in CONVERTED_SUFFIXES or not self._corpora.has(name):
            return
        path = self._corpora.find(name)
        if path.is_dir() or path.stat().st_size != file.bytes:
            raise other_corpus(name)

    def _sent_before(self, request: UploadRequest, content: str, owner: str | None) -> str | None:
        """Return the name of the corpus if the client has sent its content; one without a name gets the request's.

        The hash of a content proves nothing: others may know it. Without keys, all clients are one.
        """
        if request.name is not None and self._corpora.has_content(request.name, content):
            return request.name if self._is_of(request.name, owner) else None
        if not self._corpora.has(content) or not self._is_of(content, owner):
            return self._name_of(content, owner) if request.name is None else None
        if request.name is None:
            return content if self._corpora.send_again(content, owner) else None
        self._add(request.name, self._corpora.find(content), request, owner)
        return request.name

    def _is_of(self, name: str, owner: str | None) -> bool:
        return owner is None or owner in self._corpora.owners(name)

    def _name_of(self, content: str, owner: str | None) -> str | None:
        """Return the name that an earlier upload of the client has given to a content."""
        for folder in sorted(self._folder.glob("*")):
            with suppress(OSError, BrokenFile):  # it was deleted a moment ago
                record = read_record(folder / _RECORD, UploadRecord)
                if record.owner == owner and record.sha256 == content and self._is_there(record):
                    return record.corpus
        return None

    def _is_there(self, record: UploadRecord) -> bool:
        """Return True if the corpus of a finished upload is still what it was."""
        name = record.corpus or ""
        return self._corpora.has(name) and corpus_sha256(self._corpora.find(name)) == record.sha256

    def _is_sent(self, record: UploadRecord) -> bool:
        """Return True if the corpus of a finished upload is there and the client's; a text without a name is new again.

        Somebody else may have deleted it, and another one sent it, since.
        """
        if record.corpus is None or not self._is_there(record):
            return False
        if record.corpus != record.sha256:
            return True
        return self._is_of(record.corpus, record.owner) and self._corpora.send_again(record.corpus, record.owner)

    def _create(self, upload_id: str, record: UploadRecord, *, is_limited: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in expired_uploads(self._folder, self._limits.upload_ttl_seconds):
            with suppress(OSError):
                DISK.remove_folder(folder)
        most = self._limits.uploads_per_user
        if is_limited and sum(self._is_open_of(folder, record.owner) for folder in self._folder.iterdir()) >= most:
            message = f"You have {most:,} unfinished uploads. Continue one, or delete one, before you start another."
            raise AppError(ErrorCode.RATE_LIMIT_EXCEEDED, message)
        if record.request.total_bytes > shutil.disk_usage(self._folder).free:
            message = "The disk of the server has no room for this corpus: free some space there."
            raise AppError(ErrorCode.INSUFFICIENT_STORAGE, message)
        with storage_errors("the upload could not be started"), filled_folder(self._folder / upload_id) as folder:
            DISK.write(folder / _CONTENT, b"")
            DISK.write(folder / _RECORD, record.model_dump_json().encode())

    def _is_open_of(self, folder: Path, owner: str | None) -> bool:
        try:
            record = read_record(folder / _RECORD, UploadRecord)
        except (OSError, BrokenFile):  # it was deleted a moment ago
            return False
        return record.owner == owner and record.corpus is None

    def _record(self, upload_id: str, owner: str | None) -> UploadRecord:
        try:
            record = read_record(self._folder / upload_id / _RECORD, UploadRecord)
        except FileNotFoundError:
            raise _unknown() from None
        if record.owner != owner:
            raise _unknown()
        return record

    def _stored(self, record: UploadRecord, content: Path, scratch: Path) -> UploadRecord:
        """Check the files of an upload and store their corpus; return the record with its name."""
        request = record.request
        sent, plain = scratch / "sent", scratch / "plain"
        sent.mkdir()
        plain.mkdir()
        if len(request.files) == 1:
            [file] = request.files
            path = sent / clean_file_name(file.name)
            path.symlink_to(content.resolve())  # messages name the file
            with content.open("rb") as stream:
                _check_hash(file, file_digest(stream, "sha256").hexdigest())
        else:
            path = sent / (request.name or "corpus")
            _split(content, request.files, path)
        text = as_text(path, plain)
        name = request.name
        if name is None:
            name = self._corpora.store(text.path, record.owner)
        else:
            self._add(name, text.path, request, record.owner)
        return changed(record, corpus=name, sha256=corpus_sha256(text.path), notes=text.notes)

    def _add(self, name: str, path: Path, request: UploadRequest, owner: str | None) -> None:
        self._corpora.add(name, path, language=request.language, is_ipa=request.is_ipa, owner=owner)

    def _complete(self, upload_id: str, record: UploadRecord, corpus: str) -> UploadStatus:
        size = record.request.total_bytes
        overview = corpus_overview(self._corpora, corpus)
        overview = changed(overview, notes=(*overview.notes, *record.notes))
        return UploadStatus(upload_id=upload_id, bytes=size, offset=size, corpus=overview, sha256=record.sha256)


def expired_uploads(folder: Path, ttl_seconds: float) -> Iterator[Path]:
    """Yield the folders of uploads that have received nothing for so many seconds, or ended so long ago."""
    uploads = sorted(folder.iterdir()) if folder.is_dir() else []
    latest = folder_time(folder) - ttl_seconds
    for upload in uploads:
        files = [upload, upload / _CONTENT, upload / _RECORD]
        if max((file.stat().st_mtime for file in files if file.exists()), default=0.0) < latest:
            yield upload


def _split(content: Path, files: tuple[UploadedFile, ...], folder: Path) -> None:
    """Write the files of a folder, whose bytes follow each other in a file, and check their hashes."""
    folder.mkdir()
    with content.open("rb") as stream:
        for file in files:
            digest, left = sha256(), file.bytes
            with (folder / file.name).open("wb") as target:
                while data := stream.read(min(left, _COPIED_BYTES)):
                    target.write(data)
                    digest.update(data)
                    left -= len(data)
            _check_hash(file, digest.hexdigest())


def _check_hash(file: UploadedFile, found: str) -> None:
    if file.sha256 not in (None, found):
        message = f"'{shown_name(file.name)}' has arrived with another SHA-256 than its own. Upload it again."
        raise AppError(ErrorCode.INVALID_INPUT, message)


def _content_sha256(request: UploadRequest) -> str | None:
    """Return the hash of the corpus that an upload becomes; None for a table, and for files without a hash."""
    if len(request.files) == 1:
        [file] = request.files
        return None if Path(file.name).suffix.lower() in CONVERTED_SUFFIXES else file.sha256
    files = sorted((file.name, file.sha256) for file in request.files if file.sha256 and not is_about(file.name))
    listing = (f"{digest}  {name}\n" for name, digest in files)
    return sha256("".join(listing).encode()).hexdigest() if all(file.sha256 for file in request.files) else None


def _unknown() -> AppError:
    return AppError(ErrorCode.DATA_NOT_FOUND, "There is no such upload: it may have expired. Start it again.")
