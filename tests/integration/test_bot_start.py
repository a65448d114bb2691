"""The start of a bot just after the bot before it was killed."""

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pydantic import SecretStr

from tests.support import settings_in
from trainer.config.settings import HttpSettings, RedisSettings, Settings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.http.backend import Backend
from trainer.people.permissions import Permissions


async def _is_member(guild_id: int, user_id: int) -> bool:
    return False


def installation_of(settings: Settings) -> Backend:
    return Backend(changed(settings, http=HttpSettings(port=None)), Permissions(settings.discord, _is_member))


async def test_server__that_ends_after_its_first_answer_is_replaced() -> None:
    with TemporaryDirectory() as name:  # short enough for the path of a socket
        folder = Path(name)
        socket = folder / "data" / "services" / "valkey.sock"
        socket.parent.mkdir(parents=True)

        async def answer_and_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            dying.close()
            with suppress(FileNotFoundError):
                socket.unlink()
            writer.write(b"+PONG\r\n")
            await writer.drain()
            writer.close()

        dying = await asyncio.start_unix_server(answer_and_end, socket)
        installation = installation_of(settings_in(folder, embedded_workers=0))
        try:
            await installation.start()
            load = await installation.queue.load()
        finally:
            await installation.close()
            await installation.stop_services()
    assert (load.is_reachable, load.has_worker) == (True, False)


async def test_server__of_the_settings_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    elsewhere = RedisSettings(url=SecretStr(f"unix://{tmp_path}/nothing.sock"))
    installation = installation_of(changed(settings_in(tmp_path, embedded_workers=0), redis=elsewhere))
    with pytest.raises(AppError) as refused:
        await installation.start()
    await installation.close()
    await installation.stop_services()
    assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
