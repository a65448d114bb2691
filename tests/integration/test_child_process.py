"""The worker's children are forked from a server process: how they start, end and outlive its death."""

import importlib
import os
import signal
from pathlib import Path

import pytest

from tests.support import (
    SERVER,
    Process,
    child_of,
    children_of_this_test,
    ended,
    environment_in,
    gone,
    is_running,
    kill,
    parent_of,
    processes,
    servers_of_this_test,
    settings_in,
    tiny_request,
    wait_for_status,
)
from tests.support.lab import Lab
from tests.support.pages import find
from tests.support.refusals import refused
from tests.support.waiting import until
from tests.support.worker_runs import training, worker_in
from trainer.contracts.base import Frozen
from trainer.contracts.errors import ErrorCode
from trainer.services.child_commands import run_command
from trainer.worker.child_process import start_child
from trainer.worker.children import built_records


def servers(folder: Path) -> list[Process]:
    return processes(folder, SERVER)


def about(process: Process, name: str) -> Path:
    return Path(f"/proc/{process.pid}/{name}")


async def test_crash__last_line_of_any_length_is_stored_and_passed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = await start_child("train-child", settings_in(tmp_path / ("x" * 1_000_000)), "none")
    code = await child.wait()
    assert code == 1
    assert any(len(line) > 1_000_000 for line in child.last_lines)
    assert child.last_lines[-1] in capfd.readouterr().err


def test_server__builds_the_records_that_its_children_would_build() -> None:
    class Unbuilt(Frozen):
        """As each record is after its import."""

    class Derived(Unbuilt):
        """A record of it."""

    records = (Unbuilt, Derived)
    assert [record.__pydantic_complete__ for record in records] == [False, False]
    importlib.reload(built_records)
    assert [record.__pydantic_complete__ for record in records] == [True, True]


async def test_server__has_one_thread_and_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    async with worker_in(tmp_path) as worker:
        await until(lambda: any("libtorch" in about(server, "maps").read_text() for server in servers(tmp_path)))
        [server] = servers(tmp_path)
        assert len([*about(server, "task").iterdir()]) == 1
        [ignored] = find(r"^SigIgn:\s+(\w+)$", about(server, "status").read_text())
        assert int(ignored, 16) & 1 << signal.SIGHUP - 1, "as when the terminal is closed"
        os.kill(server.pid, signal.SIGTERM)  # as when the whole process group is ended
        worker.kill()
    assert await gone(tmp_path)


async def test_command__that_uses_no_processor_time_is_ended(tmp_path: Path) -> None:
    request = tmp_path / "request.yaml"
    os.mkfifo(request)  # nobody writes to it
    lines: list[bytes] = []
    result = await run_command(["train", str(request)], environment_in(tmp_path), lines.append, stall_seconds=1.0)
    assert (result.exit_code, result.output) == (-signal.SIGTERM, b"")
    assert await gone(tmp_path)


async def test_fork_server_killed__its_child_trains_on_and_a_new_one_starts(lab: Lab) -> None:
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(num_epochs=100), user_id=None)).run_id
        await wait_for_status(queue, run_id, training)
        kill(parent_of(child_of(lab.folder, run_id).pid))
        first = await wait_for_status(queue, run_id, ended)
        next_id = (await queue.train(tiny_request(), user_id=None)).run_id
        second = await wait_for_status(queue, next_id, ended)
    assert [(status.status, status.attempt) for status in (first, second)] == [("completed", 1)] * 2


@pytest.mark.slow
async def test_child_that_cannot_start__is_an_error_and_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start_child("train-child", settings_in(tmp_path), "none")
    await first.wait()
    [server] = servers_of_this_test()
    kill(server)
    await until(lambda: not is_running(server))
    known = children_of_this_test()
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # Python does not start with it
    with refused(ErrorCode.SERVICE_UNAVAILABLE):
        await start_child("train-child", settings_in(tmp_path))
    started = children_of_this_test() - known
    await until(lambda: not any(map(is_running, started)))  # until then no other server is started
    monkeypatch.undo()
    second = await start_child("train-child", settings_in(tmp_path), "none")
    assert await second.wait() == await first.wait() == 1
