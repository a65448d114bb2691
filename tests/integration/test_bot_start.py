"""The start of a bot just after the bot before it was killed."""

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import settings_in
from trainer.config.settings import HttpSettings
from trainer.contracts.base import changed
from trainer.http.backend import Backend


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
        settings = changed(settings_in(folder, embedded_workers=0), http=HttpSettings(port=None))
        installation = Backend(settings)
        try:
            await installation.start()
            load = await installation.lab.queue.workers.load()
        finally:
            await installation.close()
            await installation.stop_services()
    assert (load.is_reachable, load.has_worker) == (True, False)
