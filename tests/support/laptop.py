"""The `mt` command in folders of its own: with the worker of the lab, and on a laptop with the server of the lab."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import environment_in
from tests.support.api_server import KEY, LabServer
from tests.support.lab import Lab
from tests.support.run_shell import Shell, enter
from trainer.client.client import Client


class Laptop(Shell):
    """A folder to type `mt` in, which works on the server of the lab; `locally` types it on the lab's machine."""

    def __init__(
        self, folder: Path, server: LabServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().__init__(folder, capsys, server.lab.folder)
        self.server = server
        self._monkeypatch = monkeypatch
        self.work_on(server.url)

    def work_on(self, url: str, key: str = KEY) -> None:
        for name, value in {**environment_in(self.folder), "MT_URL": url, "MT_KEY": key}.items():
            self._monkeypatch.setenv(name, value)

    def start_here(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that works on the server, as a process of its own."""
        environment = {**environment_in(self.folder), "MT_URL": self.server.url, "MT_KEY": KEY}
        words = (sys.executable, "-m", "trainer", *words)
        return subprocess.Popen(
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def locally(self, *words: str, root: Path | None = None) -> tuple[int, str, str]:
        for name, value in environment_in(root or self.root, QUEUE__EMBEDDED_WORKERS="0", MT_URL="").items():
            self._monkeypatch.setenv(name, value)
        try:
            return self.run(*words)
        finally:
            self.work_on(self.server.url)

    def here(self, *words: str) -> tuple[int, str, str]:
        """Type a command that works on the laptop itself."""
        return self.locally(*words, root=self.folder)


@pytest.fixture(name="lab_shell")
def lab_shell_fixture(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Its settings name the lab, whose worker does the work."""
    return enter(monkeypatch, capsys, tmp_path, lab.folder, QUEUE__EMBEDDED_WORKERS="0")


@pytest.fixture(name="laptop")
def laptop_fixture(
    server: LabServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Laptop:
    monkeypatch.delenv("LOGGING__LEVEL", raising=False)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)
    return Laptop(tmp_path, server, capsys, monkeypatch)


@pytest.fixture(scope="module", name="client")
def client_fixture(server: LabServer) -> Iterator[Client]:
    with Client(server.url, KEY) as client:
        yield client
