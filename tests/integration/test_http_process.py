"""The HTTP API as a process of its own, and beside a bot that cannot reach Discord."""

import asyncio
import resource
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from pydantic import TypeAdapter

from bot.app import build
from local_discord import LocalDiscord
from tests.support import ROOT, environment_in, gone, processes, settings_in
from tests.support.bot import TOKEN, ended
from tests.support.bot import settings as bot_settings
from tests.support.finished_runs import finished_run
from tests.support.http import ADMIN, ALL_KEYS, Site, with_api
from tests.support.waiting import PATIENCE_SECONDS, until
from trainer.config.settings import DiscordSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorBody, ErrorCode

_line = TypeAdapter(dict[str, object])


async def started(folder: Path, *words: str, **environment: str) -> Process:
    given = {"HTTP__PORT": "0", "SECURITY__API_KEYS": ALL_KEYS, "QUEUE__EMBEDDED_WORKERS": "0", "APP__ENV": "prod"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words),
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


@pytest.mark.parametrize("words", [("bot", "--no-discord"), ("trainer", "up", "--no-discord")], ids="-".join)
async def test_process__answers_until_it_is_terminated_and_leaves_nothing(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    process = await started(tmp_path, *words)
    port = await port_of(process)
    async with ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/healthz") as health:
            assert (health.status, await health.text()) == (200, '{"status":"ok"}')
        async with session.get(f"http://127.0.0.1:{port}/runs", headers={"X-Api-Key": ADMIN}) as runs:
            assert runs.status == 200
        assert processes(tmp_path, "valkey-server") or processes(tmp_path, "redis-server")
        process.terminate()
        code, errors = await ended(process)
    assert (code, errors) == (0, "")
    assert await gone(tmp_path)


async def test_process__that_can_open_no_more_files_says_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm")
    process = await started(tmp_path, "bot", "--no-discord")
    address = f"http://127.0.0.1:{await port_of(process)}/runs/{run.run_id}/config.yaml"
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    async with ClientSession(headers={"X-Api-Key": ADMIN}) as session:
        async with session.get(address) as before:
            await before.read()  # so that the next request takes the same connection
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        async with session.get(address) as failed:
            error = ErrorBody.model_validate_json(await failed.read())
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        process.terminate()
        code, _ = await ended(process)
    assert before.status == 200
    assert (failed.status, error.code) == (503, ErrorCode.SERVICE_UNAVAILABLE)
    assert code == 0


async def test_process__whose_port_is_taken_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        process = await started(tmp_path, "bot", "--no-discord", HTTP__PORT=str(port))
        code, errors = await ended(process)
    assert code == 2
    assert errors == (
        "HTTP__HOST and HTTP__PORT cannot be used (Address already in use). Set another port, or 0 for any.\n"
    )
    assert await gone(tmp_path)


MISTAKES = [
    ({"HTTP__PORT": ""}, "HTTP__PORT is empty: without Discord, there is nothing to run.\n"),
    (
        {"SECURITY__API_KEYS": "ana:boss:secret-0123456789"},
        "`SECURITY__API_KEYS` must be NAME:ROLE:KEY, with the role user or admin and a KEY of at least 16 characters.",
    ),
    ({"SECURITY__API_KEYS": "", "HTTP__HOST": "0.0.0.0"}, "HTTP__HOST is '0.0.0.0', which other machines can reach"),  # noqa: S104
]


@pytest.mark.parametrize(("environment", "message"), MISTAKES, ids=["port", "keys", "host"])
async def test_process__with_a_wrong_setting_says_what_is_wrong(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    code, errors = await ended(await started(tmp_path, "bot", "--no-discord", **environment))
    assert code == 2
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert "secret" not in errors
    assert await gone(tmp_path)


async def test_process__with_an_unknown_option_says_how_it_is_called(tmp_path: Path) -> None:
    code, errors = await ended(await started(tmp_path, "bot", "--without-discord"))
    assert (code, errors) == (2, "Usage: python -m bot [--no-discord]\n")


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
        yield Site(bot.backend.queue, bot.backend.port, session)
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
