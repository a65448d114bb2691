"""The HTTP API as a process of its own, and beside a bot that cannot reach Discord."""

import asyncio
import re
import resource
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector
from pydantic import TypeAdapter

from bot.app import build
from local_discord import LocalDiscord
from tests.support import ROOT, environment_in, gone, processes, settings_in, tiny_request
from tests.support.bot import TOKEN, ended
from tests.support.bot import settings as bot_settings
from tests.support.finished_runs import finished_run
from tests.support.http import ADMIN, ALL_KEYS, ANA, Site, with_api
from tests.support.markers import slow_except
from tests.support.waiting import PATIENCE_SECONDS, until
from trainer.config.settings import DiscordSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.runs import Accepted

_line = TypeAdapter(dict[str, object])


async def started(folder: Path, *words: str, descriptors: str = "", **environment: str) -> Process:
    """Start a program, with a limit of open files that it cannot raise."""
    limited: tuple[str, ...] = () if not descriptors else ("sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh")
    given = {"HTTP__PORT": "0", "SECURITY__API_KEYS": ALL_KEYS, "QUEUE__EMBEDDED_WORKERS": "0", "APP__ENV": "prod"}
    return await asyncio.create_subprocess_exec(
        *(*limited, sys.executable, "-m", *words),
        cwd=folder,
        env=environment_in(folder, **{"PYTHONPATH": str(ROOT), **given, **environment}),
        stdout=PIPE,
        stderr=PIPE,
    )


async def port_of(process: Process) -> int:
    """The port that a process says it listens on."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            line = _line.validate_json(await process.stdout.readline())
            if line["message"] == "http_started":
                assert isinstance(line["port"], int)
                assert line["page"] == f"http://127.0.0.1:{line['port']}/"
                return line["port"]


STARTS = (("bot", "--no-discord"), ("trainer", "up", "--no-discord"))


@pytest.mark.parametrize("words", slow_except(STARTS, STARTS[0]), ids=["bot", "up"])
async def test_process__answers_until_it_is_terminated_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """While it can open no more files, it says so."""
    run = finished_run(tmp_path, "lstm")
    process = await started(tmp_path, *words)
    url, address = f"http://127.0.0.1:{await port_of(process)}", f"/runs/{run.run_id}/config.yaml"
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    async with ClientSession(url, headers={"X-Api-Key": ADMIN}) as session:
        async with session.get("/healthz") as health:
            assert (health.status, await health.text()) == (200, '{"status":"ok"}')
        async with session.get(address) as before:
            await before.read()  # so that the next request takes the same connection
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        async with session.get(address) as failed:
            error = ErrorBody.model_validate_json(await failed.read())
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        assert processes(tmp_path, "valkey-server") or processes(tmp_path, "redis-server")
        process.terminate()
        code, errors = await ended(process)
    assert (before.status, failed.status, error.code) == (200, 503, ErrorCode.SERVICE_UNAVAILABLE)
    assert (code, errors) == (0, "")
    assert await gone(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["", "GET /he", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], ids=len)
async def test_process__with_few_descriptors_answers_beside_more_idle_clients_than_it_can_hold(
    tmp_path: Path, begun: str
) -> None:
    run = finished_run(tmp_path, "lstm")
    process = await started(tmp_path, "bot", "--no-discord", descriptors="256")
    port = await port_of(process)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(400)]
    for _, writer in idle:
        writer.write(begun.encode())
    async with ClientSession(f"http://127.0.0.1:{port}", headers={"X-Api-Key": ADMIN}) as session:
        for path in ("/healthz", f"/runs/{run.run_id}/config.yaml", "/healthz"):
            async with session.get(path) as answer:
                assert answer.status == 200
    for _, writer in idle:
        writer.transport.abort()
    process.terminate()
    printed, errors = await process.communicate()
    lines = [_line.validate_json(line)["message"] for line in printed.splitlines()]
    others = [line for line in lines if line != "http_request"]
    assert (others.count("http_connections_full"), len(others) < 5, errors) == (1, True, b"")


async def test_process__with_few_descriptors_answers_beside_as_many_streams_as_it_serves(tmp_path: Path) -> None:
    (tmp_path / "data" / "corpus").mkdir(parents=True)
    (tmp_path / "data" / "corpus" / "text.txt").write_text("abc abc\n" * 500, encoding="utf-8")
    process = await started(tmp_path, "bot", "--no-discord", descriptors="256")
    url = f"http://127.0.0.1:{await port_of(process)}"
    async with ClientSession(url, connector=TCPConnector(limit=0)) as session:
        key, body = {"X-Api-Key": ADMIN, "Content-Type": "application/json"}, tiny_request().model_dump_json().encode()
        async with session.post("/runs/train", data=body, headers=key) as accepted:
            address = f"/runs/{Accepted.model_validate_json(await accepted.read()).run_id}/events"
        statuses: list[int] = []
        async with AsyncExitStack() as streams:
            for key in ({"X-Api-Key": ADMIN}, {"X-Api-Key": ANA}) * 50:
                opened = await streams.enter_async_context(session.get(address, headers=key))
                statuses.append(opened.status)
            async with session.get("/healthz") as health:
                assert health.status == 200
    process.terminate()
    printed, errors = await process.communicate()
    assert statuses.count(200) >= 20 and {*statuses} == {200, 429}
    assert b"Too many open files" not in printed + errors


def test_limit_of_descriptors__is_raised_to_what_the_system_allows() -> None:
    program = "from trainer.system.hardware import *; raise_descriptor_limit(); print(descriptor_limit())"
    raised = []
    for soft, hard in ((100, 200), (64, "hard")):
        limits = f"ulimit -S -n {soft}" + ("" if hard == "hard" else f"; ulimit -H -n {hard}")
        words = ["sh", "-c", f'{limits}; exec "$@"', "sh", sys.executable, "-c", program]
        raised.append(int(subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raised == [200, 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)]


@pytest.mark.slow
async def test_process__that_cannot_start_says_why(tmp_path: Path) -> None:
    words = ("--no-discord", "--no-discord", "--without-discord")
    folders = [tmp_path / name for name in ("taken", "empty", "unknown")]
    for folder in folders:
        folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        starting = [
            await started(folder, "bot", word, HTTP__PORT=given)
            for folder, word, given in zip(folders, words, (str(port), "", ""), strict=True)
        ]
        ends = await asyncio.gather(*map(ended, starting))
    remedy = "Set another port with `mt up --port PORT` or HTTP__PORT, or 0 for any.\n"
    in_use = f"Another program uses port {port} of 127.0.0.1. {remedy}"
    empty = "HTTP__PORT is empty: without Discord, there is nothing to run.\n"
    assert ends == [(2, in_use), (2, empty), (2, "Usage: python -m bot [--no-discord]\n")]
    assert await gone(tmp_path)


async def test_up__prints_its_address_for_people_and_a_second_one_says_who_runs(tmp_path: Path) -> None:
    settings = {"APP__ENV": "dev", "HTTP__PORT": "1"}
    first = await started(tmp_path, "trainer", "up", "--no-discord", "--port", "0", **settings)
    assert first.stdout is not None
    printed = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "Discord:" not in printed:
            printed += (await first.stdout.readline()).decode()
    second = await ended(await started(tmp_path, "trainer", "up", "--no-discord", "--port", "0"))
    mistake = await ended(await started(tmp_path, "trainer", "up", "--no-discord", "--port", "x"))
    first.terminate()
    await ended(first)
    address = re.search(r"^The page is at (http://127\.0\.0\.1:\d+/)\.$", printed, re.MULTILINE)
    assert address is not None and f"page={address[1]} " in printed
    lines = [
        f"Runs and added corpora are in {tmp_path}/artifacts; text files in {tmp_path}/data/corpus are corpora, too.",
        "Discord: off. Stop with Ctrl-C.",
    ]
    assert set(lines) <= set(printed.splitlines())
    holder = f"(process {first.pid} of {socket.gethostname()})"
    assert second == (
        1,
        f"The bot already runs {holder}. Stop it first; a second bot needs another `APP__ARTIFACTS_ROOT`.\n",
    )
    assert mistake[0] == 2 and mistake[1].startswith("mt: `HTTP__PORT` must be a valid integer")
    assert await gone(tmp_path)


async def figure(site: Site, name: str) -> float:
    text = (await site.get("/metrics")).text
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


@asynccontextmanager
async def bot_with_api(folder: Path, discord: DiscordSettings) -> AsyncIterator[Site]:
    """The API of a bot that has just been started."""
    settings = changed(with_api(settings_in(folder, embedded_workers=0)), discord=discord)
    async with build(settings) as bot, ClientSession() as session:
        running = asyncio.create_task(bot.start(TOKEN))
        await until(lambda: bot.backend.port is not None)
        yield Site(bot.backend.lab.queue, bot.backend.port, session)
        running.cancel()  # as the process does
    await asyncio.gather(running, return_exceptions=True)


async def test_api__answers_while_discord_is_unreachable(tmp_path: Path) -> None:
    nowhere = {"token": TOKEN, "api_base_url": "http://127.0.0.1:1/api", "owner_id": 1}
    async with bot_with_api(tmp_path, DiscordSettings.model_validate(nowhere)) as here:
        assert (await here.get("/runs")).status == 200
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await figure(here, 'mt_discord_requests_total{status="0"}'):
                await asyncio.sleep(0.05)


async def test_api__answers_beside_a_bot(tmp_path: Path) -> None:
    async with LocalDiscord(token=TOKEN) as server:
        ana = server.add_user("ana")
        discord = changed(bot_settings(tmp_path, server).discord, owner_id=ana.id)
        async with bot_with_api(tmp_path, discord) as here:
            await server.connected()
            await server.synced()
            assert (await here.get("/runs")).status == 200
            assert await figure(here, 'mt_discord_requests_total{status="200"}') > 0
