"""Settings of all tests: one thread a process, as tests run beside each other, and the profiles of hypothesis.

The profiles `quick` and `repeatable` draw the same examples in each run, `patient` draws new ones.
"""

import gc
import os
import signal
from itertools import cycle

import hypothesis
import pytest
import structlog

from tests.support.api_server import server_fixture
from tests.support.bot import no_bot_is_left_fixture
from tests.support.http import copied_fixture, here_fixture, run_fixture
from tests.support.inference_bot import answers_fixture
from tests.support.lab import lab_fixture
from tests.support.laptop import client_fixture, lab_shell_fixture, laptop_fixture
from tests.support.run_shell import shell_fixture

__all__ = ["answers_fixture", "client_fixture", "copied_fixture", "here_fixture", "lab_fixture", "lab_shell_fixture"]
__all__ += ["laptop_fixture", "no_bot_is_left_fixture", "run_fixture", "server_fixture", "shell_fixture"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HTTP__PORT"] = ""  # bots of the tests run beside each other; a test of the HTTP API chooses a free port
# rich's tracebacks, the default, take a twentieth of the time of the bot's tests
structlog.configure([structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and children inherit that

_SUPPRESSED: list[hypothesis.HealthCheck] = [hypothesis.HealthCheck.too_slow]
# a busy machine says nothing about an example, so there is no deadline
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=_SUPPRESSED)
_PATIENT = hypothesis.settings.get_profile("patient")
hypothesis.settings.register_profile("repeatable", _PATIENT, derandomize=True)
hypothesis.settings.register_profile("quick", _PATIENT, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("patient")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # torch's objects: the collector needs a tenth of the suite's time to visit them again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let half of the processes of pytest-xdist begin with the tests that wait for processes, and half end with them.

    So there is always something to compute. It cuts the list into equal parts, one for each process. Files stay in one
    part, for the sake of their fixtures.
    """
    parts: list[list[pytest.Item]] = [[] for _ in range(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))]
    slow = [item for item in items if item.get_closest_marker("slow")]  # `make test` leaves them out after this
    others = [item for item in items if not item.get_closest_marker("slow")]
    quick = [item for item in others if item.nodeid.startswith("tests/unit/")]
    waiting = [item for item in others if not item.nodeid.startswith("tests/unit/")]
    for part, path in zip(cycle(parts), sorted({item.path for item in waiting}), strict=False):
        part += [item for item in waiting if item.path == path]
    size = -(-len(others) // len(parts))
    items[:] = slow
    for number, part in enumerate(parts):
        room = max(0, size - len(part))
        computing, quick = quick[:room], quick[room:]
        items += part + computing if number % 2 == 0 else computing + part
