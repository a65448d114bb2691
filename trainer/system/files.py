"""Durable writes that survive a crash, and reads of files that may have been damaged or replaced."""

import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import file_digest
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from trainer.contracts.base import FileRecord
from trainer.contracts.earlier_forms import OtherForm, read_stored
from trainer.contracts.errors import AppError, ErrorCode, transient_code

Record = TypeVar("Record", bound=BaseModel)

_MAX_RECORD_BYTES = 64 << 20
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_FOLDER_UNUSABLE = (*READ_ONLY, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_NO_LOCKS = (*_UNSUPPORTED, errno.ENOLCK)
_NO_SYNC = (*_UNSUPPORTED, errno.EINVAL)
_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY)
_OPEN_FILE = ".nfs"
_LITTLE_ROOM_BYTES = 1 << 14
_PROBE_BYTES = 4096  # a disk that is full still has room for names


class BrokenFile(ValueError):
    """A stored file whose contents are not the ones written there."""


class UnknownForm(BrokenFile):
    """A record in a form that this version of the program does not know; nothing shows that it is damaged."""


class Disk:
    """Durable file operations, each in one method.

    What `write`, `write_at` and `cut` have put into a file is durable when they return; names are when `sync` has
    returned for the folder that they are in.
    """

    def make_folder(self, folder: Path, *, exist_ok: bool = True) -> None:
        """Create a folder with its parents; their names are durable when it returns."""
        if not folder.parent.exists():
            self.make_folder(folder.parent)
            self.sync(folder.parent.parent)
        folder.mkdir(exist_ok=exist_ok)

    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        with open(path, "wb", opener=_open_itself) as file:
            shutil.copyfileobj(BytesIO(data) if isinstance(data, bytes) else data, file)
            file.flush()
            self.flush(file.fileno())

    def write_at(self, file: FileIO, offset: int, data: bytes) -> None:
        while data:
            written = os.pwrite(file.fileno(), data, offset)
            data, offset = data[written:], offset + written
        self.flush(file.fileno())

    def cut(self, file: FileIO, length: int) -> None:
        file.truncate(length)
        self.flush(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder with its contents, or a file of that name; what is missing is removed already.

        NFS keeps the files that a process of this machine has open, as `.nfs…`. They stay in a hidden folder, which a
        later cleanup removes, and the name of the folder is free.
        """
        if not folder.is_dir() or folder.is_symlink():
            folder.unlink(missing_ok=True)
            return
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():  # the files were closed meanwhile
                return
            left = [path for path in folder.rglob("*") if not path.is_dir()]
            if not left or not all(path.name.startswith(_OPEN_FILE) for path in left):
                raise
            self.rename(folder, hidden_beside(folder))

    def sync(self, folder: Path) -> bool:
        """Make the names in a folder durable; return False for a file system that does this by itself, or never."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            self.flush(descriptor)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
            return False
        finally:
            os.close(descriptor)
        return True

    def flush(self, descriptor: int) -> None:
        os.fsync(descriptor)


DISK = Disk()


@contextmanager
def storage_errors(lost: str) -> Iterator[None]:
    """Raise INSUFFICIENT_STORAGE for a full disk and SERVICE_UNAVAILABLE for a failing one, naming what was `lost`.

    Other errors, such as a folder in place of a file, are not changed.
    """
    try:
        yield
    except OSError as error:
        code = transient_code(error)
        if code is None:
            raise
        if code is ErrorCode.INSUFFICIENT_STORAGE:
            raise AppError(code, f"The disk is full, so {lost}: free some space.") from error
        raise AppError(code, f"The disk failed ({error.strerror}), so {lost}: have it checked.") from error


def check_writable(folder: Path) -> None:
    """Create a folder if it is missing, and check that files can be written and locked in it.

    Raises OSError if they cannot be written, and CONFIG_INVALID if they cannot be locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        take_lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_read_only(folder: Path) -> bool:
    """Return True if this user may read a folder but not write to it; raises OSError if it cannot be used."""
    try:
        check_writable(folder)
    except OSError as error:
        if error.errno not in READ_ONLY or not folder.is_dir():
            raise
        return True
    return False


def is_full(folder: Path) -> bool:
    """Return True if the disk has no room for another log line."""
    return shutil.disk_usage(folder).free < _LITTLE_ROOM_BYTES


def is_about(error: OSError, folder: Path) -> bool:
    """Return True if an error concerns a folder, its contents, its parents, or its temporary name."""
    filename: object = error.filename
    if not isinstance(filename, str):
        return False
    path = Path(filename).absolute()
    names = (folder.absolute(), folder.resolve())
    is_temporary = path.parent == names[0].parent and path.name.startswith(f".{names[0].name}.")
    return is_temporary or any(path.is_relative_to(name) or name.is_relative_to(path) for name in names)


def _single_file(error: OSError, folder: Path) -> Path | None:
    """Return the file below a usable folder that is missing or closed to this user; None for a fault of the folder."""
    filename: object = error.filename
    path = Path(str(filename))
    is_missing = error.errno == errno.ENOENT and path.parent.is_dir() and folder.is_dir()
    is_closed = error.errno in (errno.EACCES, errno.EPERM) and os.path.isfile(path)
    return path if path.absolute() != folder.absolute() and (is_missing or is_closed) else None


def to_app_error(error: AppError | OSError | BrokenFile, folders: Mapping[str, Path]) -> AppError:
    """Return an error with one sentence for an unreadable record, a full or failing disk, or an unusable folder.

    `folders` are the folders of the settings by name. An AppError is returned unchanged; other errors are raised again.
    """
    if isinstance(error, AppError):
        return error
    if isinstance(error, BrokenFile):
        return AppError(ErrorCode.RECORD_UNREADABLE, str(error))
    code = transient_code(error)
    if code is ErrorCode.INSUFFICIENT_STORAGE:
        return AppError(code, "The disk is full: free some space.")
    if error.errno in _FOLDER_UNUSABLE:
        for name, folder in folders.items():
            if is_about(error, folder):
                if (path := _single_file(error, folder)) is not None:
                    message = f"The file '{path.name}' of '{path.parent.name}' cannot be read ({error.strerror})."
                    return AppError(ErrorCode.RECORD_UNREADABLE, message)
                return AppError(
                    ErrorCode.CONFIG_INVALID,
                    f"The folder of {name} cannot be used ({error.strerror}): let this user write there, or set {name}"
                    " to another folder.",
                )
    if code is None:
        raise error
    return AppError(code, f"The disk failed ({error.strerror}): have it checked.")


def write_atomically(path: Path, data: bytes | BinaryIO, disk: Disk = DISK) -> None:
    """Replace a file atomically: after a crash or power cut it has either its old or its new contents.

    Raises INSUFFICIENT_STORAGE and SERVICE_UNAVAILABLE as `storage_errors` does.
    """
    with storage_errors(f"`{path.name}` could not be written"), written_aside(path, disk) as temporary:
        disk.write(temporary, data)


@contextmanager
def written_aside(path: Path, disk: Disk = DISK) -> Iterator[Path]:
    """Yield a temporary path; the file or folder that was written there gets the name `path` at the end, durably.

    It is removed after an error.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        disk.rename(temporary, path)
        disk.sync(path.parent)
    except BaseException:
        with suppress(OSError):
            disk.remove_folder(temporary)
        raise


def copy_durably(source: Path, target: Path, disk: Disk = DISK) -> None:
    """Copy a file, or a folder with its contents; the caller syncs the name of the copy."""
    if source.is_dir():
        disk.make_folder(target)
        for path in sorted(source.iterdir()):
            copy_durably(path, target / path.name, disk)
        disk.sync(target)
    else:
        with BufferedReader(open_regular(source)) as file:
            disk.write(target, file)


def open_regular(path: Path, mode: Literal["rb", "r+b", "ab", "a+b"] = "rb") -> FileIO:
    """Open a regular file without buffering; links are not followed, pipes and devices not opened.

    Raises BrokenFile for what is no regular file.
    """
    try:
        file = FileIO(path, mode, opener=_open_itself)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):  # a folder; a link; a socket or missing device
            raise _no_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _no_file(path)
    return file


def read_regular(path: Path, most_bytes: int = _MAX_RECORD_BYTES) -> bytes:
    """Read a regular file completely; raises BrokenFile for a larger one before it takes memory."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise BrokenFile(f"The file '{path.name}' of '{path.parent.name}' is larger than allowed.")
        return file.readall()


def read_record(path: Path, model: type[Record]) -> Record:
    """Read a record from its JSON file, in today's form or an earlier one.

    Raises BrokenFile if it is not valid, and UnknownForm if it is JSON in a form that this program does not know.
    """
    with reading(path):
        return read_stored(model, read_regular(path))


def find_record(path: Path, model: type[Record]) -> Record | None:
    """Read a record; None if there is no file. Raises BrokenFile as `read_record` does."""
    try:
        return read_record(path, model)
    except FileNotFoundError:
        return None


def whole_record(path: Path, model: type[Record]) -> Record | None:
    """Read a record; None if there is no file, and if it is damaged."""
    try:
        return find_record(path, model)
    except BrokenFile:
        return None


def read_records(path: Path, model: type[Record]) -> list[Record]:
    """Read records from a file of JSON lines of any size; raises BrokenFile if one is not valid."""
    with open_regular(path) as file, BufferedReader(file) as lines, reading(path):
        return [read_stored(model, line) for line in lines]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise BrokenFile or UnknownForm, with the names of file and folder, for a record that cannot be read."""
    try:
        yield
    except OtherForm as error:
        raise UnknownForm(f"The file '{path.name}' of '{path.parent.name}' has another form: {error}.") from error
    except ValidationError:
        raise damaged(path) from None


def damaged(path: Path) -> BrokenFile:
    return BrokenFile(f"The file '{path.name}' of '{path.parent.name}' cannot be read: its content is damaged.")


def folder_time(folder: Path) -> float:
    """Return the time of the clock that dates the files of a folder, in seconds since 1970.

    It is another machine's on a shared folder. Without a file, as on a full disk, it is that of this machine.
    """
    try:
        with TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def changed_ns(path: Path) -> int | None:
    """Return when a file was changed last, in ns since 1970; None if there is no file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def sha256_of(path: Path) -> str:
    with open_regular(path) as file:
        return file_digest(file, "sha256").hexdigest()


def file_records(folder: Path, paths: Iterable[Path]) -> tuple[FileRecord, ...]:
    """Return size and SHA-256 of files, with names relative to a folder, sorted by name."""
    return tuple(
        FileRecord(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(paths)
    )


def changed_files(folder: Path, records: Iterable[FileRecord]) -> list[str]:
    """Return the names of files that are missing or do not match their records."""
    return [record.path for record in records if not _is_unchanged(folder, record)]


def take_lock(descriptor: int, operation: int) -> None:
    """Lock an open file or folder.

    Raises BlockingIOError while another process has a lock, and CONFIG_INVALID for a disk without locks.
    """
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        message = (
            f"The disk of the data or artifacts folder has no file locks ({error.strerror}), so two processes could"
            " damage a run: mount it with locks (Lustre: `-o flock`; NFS: its lock service), or set APP__DATA_ROOT and"
            " APP__ARTIFACTS_ROOT to another disk."
        )
        raise AppError(ErrorCode.CONFIG_INVALID, message) from error


def try_lock(path: Path) -> BinaryIO | None:
    """Take a kernel lock that ends with the process holding the open file; None if another process has it."""
    file = open_regular(path, "ab")
    try:
        take_lock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, AppError) as error:
        file.close()
        if isinstance(error, AppError):
            raise
        return None
    return file


def use_folder(folder: Path) -> int | None:
    """Keep cleanups away from a folder until the returned descriptor is closed; None if the folder does not exist.

    Waits while a cleanup removes files of the folder. On a network disk this holds among processes of one machine.
    """
    return _lock_folder(folder, fcntl.LOCK_SH)


def claim_folder(folder: Path) -> int | None:
    """Keep users away from a folder until the returned descriptor is closed; None if it is in use or does not exist."""
    return _lock_folder(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def changing_folder(folder: Path) -> Iterator[None]:
    """Let one process and thread at a time change a folder, which is created; the others wait."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock_folder(folder, fcntl.LOCK_EX)
        if descriptor is not None:
            break
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_folder(folder: Path, operation: int) -> int | None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        is_held = False
        try:
            with suppress(BlockingIOError, FileNotFoundError):
                take_lock(descriptor, operation)
                # else it was removed while this process waited
                is_held = os.path.samestat(os.fstat(descriptor), folder.stat())
        finally:
            if not is_held:
                os.close(descriptor)
        return descriptor if is_held else None
    return None


def _is_unchanged(folder: Path, record: FileRecord) -> bool:
    path = folder / record.path
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        return inside and path.stat().st_size == record.bytes and sha256_of(path) == record.sha256
    except (OSError, ValueError):
        return False


def _open_itself(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _no_file(path: Path) -> BrokenFile:
    return BrokenFile(f"'{path.name}' of '{path.parent.name}' is no regular file.")


def hidden_beside(folder: Path) -> Path:
    """Return a new name beside a folder for what is not complete or no longer needed; cleanups remove old ones."""
    return folder.with_name(f".tmp-{secrets.token_hex(8)}")


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that gets its name at the end, unless another process has created it first."""
    temporary = hidden_beside(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        DISK.sync(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        DISK.sync(folder.parent)
    finally:
        with suppress(OSError):
            DISK.remove_folder(temporary)
