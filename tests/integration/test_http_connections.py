"""Connections to the HTTP API: those that keep it waiting are closed, and they are limited in number."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from socket import socket

import pytest
from aiohttp import web

from tests.support.http import ADMIN, Site, inside, with_api
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.waiting import PATIENCE_SECONDS, captured_logs, until
from trainer.contracts.errors import ErrorCode
from trainer.http.api import HttpTimeouts
from trainer.http.connections import Connections
from trainer.lab.requests import MAX_BODY_BYTES

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = f"POST /runs/train HTTP/1.1\r\nHost: x\r\nX-Api-Key: {ADMIN}\r\nContent-Type: application/json\r\n".encode()


@pytest.fixture(name="hasty")
async def hasty_fixture(tmp_path: Path) -> AsyncIterator[Site]:
    timeouts = HttpTimeouts(idle_seconds=0.3, body_seconds=0.3)
    async with embedded(tmp_path) as (settings, queue, _):
        async with inside(queue, with_api(settings, http={"max_connections": 3}), timeouts) as (site, _):
            yield site


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Api-Key: "])
async def test_connection__without_a_complete_header_is_closed(hasty: Site, begun: bytes) -> None:
    assert await hasty.say(begun) == b""
    after_a_request = await hasty.say(HEALTH + begun)
    assert after_a_request.startswith(b"HTTP/1.1 200 ")
    assert after_a_request.endswith(b'{"status":"ok"}')


async def test_connection__that_sends_a_byte_at_a_time_is_closed(hasty: Site) -> None:
    reader, writer = await hasty.connect()
    closing = asyncio.create_task(reader.read())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not closing.done():
            writer.write(b"G")
            await asyncio.sleep(0.05)
    writer.close()


async def test_body__that_does_not_arrive_is_refused(hasty: Site) -> None:
    refused = await hasty.say(POST + b"Content-Length: 10\r\nConnection: close\r\n\r\n{}")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert b"The body did not arrive completely within 0.3 seconds." in refused


async def test_body__of_a_client_that_leaves_is_no_error(hasty: Site) -> None:
    with captured_logs() as logs:
        _, writer = await hasty.connect()
        writer.write(POST + b"Content-Length: 10\r\n\r\n{}")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not logs:
                await asyncio.sleep(0.01)
    assert [(entry["event"], entry["http_status"]) for entry in logs] == [("http_request", 499)]


async def test_body__without_a_key_is_not_read(hasty: Site) -> None:
    head = POST.replace(ADMIN.encode(), b"wrong") + b"Content-Length: %d\r\n\r\n" % MAX_BODY_BYTES
    reader, writer = await hasty.connect()
    writer.write(head)
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()


async def test_connection__above_the_limit_takes_the_place_of_the_oldest_idle_one(tmp_path: Path) -> None:
    async with (
        embedded(tmp_path) as (settings, queue, _),
        inside(queue, with_api(settings, http={"max_connections": 3})) as (site, _),
    ):
        open_ones = [await site.connect() for _ in range(3)]
        for reader, writer in open_ones:
            writer.write(HEALTH)
            await reader.readuntil(b'{"status":"ok"}')
        with captured_logs() as logs:
            for reader, writer in open_ones[:2]:
                writer.write(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
                await reader.readuntil(b"100 Continue")
            once = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            assert b'{"status":"ok"}' in await site.say(once)
            assert await open_ones[2][0].read() == b"", "the idle one"
            reader, writer = await site.connect()
            writer.write(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
            await reader.readuntil(b"100 Continue")
            open_ones.append((reader, writer))
            waiting, writer = await site.connect()
            writer.write(once)
            for _, one in open_ones:
                one.transport.abort()
                one.close()
            assert b'{"status":"ok"}' in await waiting.read(), "it has waited for a place, because all were busy"
            writer.close()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(logs) < 6:
                    await asyncio.sleep(0.01)
        assert (await site.get("/healthz")).status == 200
    assert sorted(str(entry["event"]) for entry in logs) == ["http_connections_full", *["http_request"] * 5]


async def test_requests__in_one_packet_are_answered_in_their_order(hasty: Site) -> None:
    answer = await hasty.say(HEALTH + HEALTH.replace(b"healthz", b"nowhere") + HEALTH)
    statuses: list[bytes] = re.findall(rb"HTTP/1.1 (\d+)", answer)
    assert statuses == [b"200", b"404", b"200"]


async def test_connection__waits_while_the_process_can_open_no_more_files() -> None:
    runner, loop, limits = web.AppRunner(web.Application()), asyncio.get_running_loop(), getrlimit(RLIMIT_NOFILE)
    await runner.setup()
    connections = Connections(runner, 10, PATIENCE_SECONDS)
    address = ("127.0.0.1", await connections.listen("127.0.0.1", 0))
    with socket() as client, captured_logs() as logs:
        client.setblocking(False)
        setrlimit(RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
        try:
            await loop.sock_connect(client, address)
            await until(lambda: bool(logs))
        finally:
            setrlimit(RLIMIT_NOFILE, limits)
        await loop.sock_sendall(client, HEALTH)
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 404 ")
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("http_connections_full", "Too many open files")]
    connections.stop()
    await runner.cleanup()


async def test_connection__that_waits_for_a_place_when_the_server_stops_is_closed() -> None:
    runner, loop = web.AppRunner(web.Application()), asyncio.get_running_loop()
    await runner.setup()
    connections = Connections(runner, 0, PATIENCE_SECONDS)
    address = ("127.0.0.1", await connections.listen("127.0.0.1", 0))
    with socket() as client, captured_logs() as logs:
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await until(lambda: bool(logs))
        connections.stop()
        await asyncio.sleep(0.2)  # when it would have tried again
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(client, 100)
    await runner.cleanup()


async def test_address__that_this_machine_does_not_have_is_refused(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, _):
        with refused(ErrorCode.CONFIG_INVALID, "HTTP__HOST and HTTP__PORT cannot be used (Cannot assign requested"):
            async with inside(queue, with_api(settings, http={"host": "192.0.2.1"})):
                pass
