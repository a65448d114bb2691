"""Servers for clients of the HTTP API: the API of the lab in a thread, and one that sends prepared answers."""

import asyncio
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

from tests.support.lab import Lab
from trainer.artifacts.runs import RunDirectory
from trainer.client.client import BackgroundLoop
from trainer.config.settings import HttpSettings, LoggingSettings, SecuritySettings, Settings
from trainer.contracts.base import changed
from trainer.http.backend import Backend
from trainer.system.logs import setup_logging

KEY, USER_KEY = "the-key-of-the-lab", "the-key-of-a-user"


class LabServer:
    """The HTTP API of a lab, with keys of an admin and of a user, on a free port that a restart keeps."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._loop = BackgroundLoop()
        keys: dict[str, object] = {"api_keys": f"lab:admin:{KEY},somebody:user:{USER_KEY}"}
        security = SecuritySettings.model_validate(keys)
        self._settings = changed(lab.settings, security=security)
        self._port = 0
        quiet: dict[str, object] = {"level": "CRITICAL"}
        setup_logging(changed(lab.settings, logging=LoggingSettings.model_validate(quiet)), "server", sys.stderr)
        self.run = asyncio.run(self._finished_run())
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        settings = changed(self._settings, http=HttpSettings(port=self._port))
        self._installation, self._port = self._loop.call(_started(settings))

    def stop(self) -> None:
        self._loop.call(self._installation.close())
        self._loop.call(self._installation.stop_services())

    def close(self) -> None:
        self.stop()
        self._loop.stop(asyncio.sleep(0))

    async def _finished_run(self) -> RunDirectory:
        async with self.lab.queue() as queue:
            return await self.lab.finished_run(queue)


async def _started(settings: Settings) -> tuple[Backend, int]:
    installation = Backend(settings)
    await installation.start()
    assert installation.port is not None
    return installation, installation.port


@pytest.fixture(scope="module", name="server")
def server_fixture(lab: Lab) -> Iterator[LabServer]:
    server = LabServer(lab)
    yield server
    server.close()


class Prepared(NamedTuple):
    """An answer; a body that is shorter than its Content-Length breaks off."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Sent(NamedTuple):
    """A request that has arrived."""

    method: str
    path: str
    headers: Mapping[str, str]


class PreparedServer(ThreadingHTTPServer):
    """Sends prepared answers, in their order; None closes the connection without one."""

    daemon_threads = True

    def __init__(self, *answers: Prepared | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.sent: list[Sent] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def _reply(self) -> None:
        server = self.server
        assert isinstance(server, PreparedServer)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.sent.append(Sent(self.command, self.path, dict(self.headers.items())))
        answer = server.answers.pop(0)
        if answer is not None:
            self.send_response(answer.status)
            for name, value in ({"Content-Length": str(len(answer.body))} | dict(answer.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_DELETE = _reply  # the names that the library calls

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def prepared(*answers: Prepared | None) -> Iterator[PreparedServer]:
    """A server that sends these answers; each must be asked for."""
    with PreparedServer(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
    assert server.answers == []
