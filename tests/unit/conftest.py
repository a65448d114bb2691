"""Refuses processes and connections in unit tests without the marker `process`, so that `make unit` stays quick."""

import sys

import pytest

_REFUSED = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "socket.connect", "socket.bind"}
_running: list[str] = []


def _audit(event: str, _: tuple[object, ...]) -> None:
    if event in _REFUSED and _running:
        raise RuntimeError(f"{event} in a unit test: move it to tests/integration or mark it with `process`")


sys.addaudithook(_audit)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("process") is None:
        _running.append(item.nodeid)


def pytest_runtest_teardown() -> None:
    _running.clear()
