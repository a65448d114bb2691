"""Refuses processes and connections in unit tests without the marker `process`, so that `make unit` stays quick."""

from typing import NoReturn

import pytest

_REFUSED = (
    *("os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen.__init__"),
    *("socket.socket.bind", "socket.socket.connect"),
)
"""Not by an audit hook: with one, coverage cannot trace threads that start at the same time."""
_patches = pytest.MonkeyPatch()


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a process or a connection in a unit test: move it to tests/integration, or mark it `process`")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("process") is None:
        for name in _REFUSED:
            _patches.setattr(name, _refuse)


def pytest_runtest_teardown() -> None:
    _patches.undo()
