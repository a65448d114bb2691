"""The HTTP API as a process, with a client."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from re import search
from typing import NamedTuple, TypeVar

import httpx2
from pydantic import BaseModel
from pydantic_core import to_json

from tests.support import environment_in
from tests.support.waiting import PATIENCE_SECONDS
from trainer.services.embedded import die_with_parent

KEY = "key-of-the-tests-0123456789"
RecordT = TypeVar("RecordT", bound=BaseModel)


class ApiProcess(NamedTuple):
    """A running API and a client with the key of an admin."""

    url: str
    client: httpx2.Client
    process: "subprocess.Popen[bytes]"

    def get(self, path: str, record: type[RecordT]) -> RecordT:
        return self._read(self.client.get(path), record)

    def post(self, path: str, record: type[RecordT], body: object = None) -> RecordT:
        headers = {"Content-Type": "application/json"}
        return self._read(self.client.post(path, content=to_json(body), headers=headers), record)

    def _read(self, answer: httpx2.Response, record: type[RecordT]) -> RecordT:
        assert answer.is_success, answer.text
        return record.model_validate_json(answer.content)


@contextmanager
def api_process(folder: Path, **environment: str) -> Iterator[ApiProcess]:
    """Serve the API of a folder on a free port, without a limit of requests."""
    settings = {
        "HTTP__PORT": "0",
        "SECURITY__API_KEYS": f"tests:admin:{KEY}",
        "LIMITS__MAX_CONCURRENT_REQUESTS": "1000000",
        **environment,
    }
    log = folder / "api.log"
    words = [*die_with_parent(), sys.executable, "-m", "bot", "--no-discord"]
    with log.open("wb") as printed:
        environ = environment_in(folder, **settings)
        # Ctrl-C reaches the tests, which end the server
        server = subprocess.Popen(
            words, cwd=folder, env=environ, stdout=printed, stderr=printed, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (port := search(r"http_started.*\bport=(\d+)", log.read_text(encoding="utf-8"))) is None:
            assert time.monotonic() < deadline and server.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port[1]}"
        with httpx2.Client(base_url=url, headers={"X-Api-Key": KEY}, timeout=PATIENCE_SECONDS) as client:
            yield ApiProcess(url, client, server)
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)
