"""`/mt export`: files of a run, attached or behind a signed link."""

import asyncio
import os
import re
import signal
import stat
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import log
from pathlib import Path

import aiohttp
import pytest

from bot.session.client import Bot
from local_discord import limits
from local_discord.driver import shown_text
from local_discord.state import StoredMessage, User
from local_discord.wire import number, text
from tests.support import children_of_this_test, settings_in
from tests.support.bot import AMBER
from tests.support.inference import RUN, finished_run
from tests.support.inference_bot import Place, is_hidden, place, said
from tests.support.refusals import refused
from tests.support.stories import Story, run_record
from tests.support.waiting import until
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.presets import request_hash, resolve
from trainer.config.settings import HttpSettings, SecuritySettings
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode
from trainer.export.archive import import_archive
from trainer.export.folders import load_export
from trainer.services.exports import LINK_SECONDS, Exports

PUBLIC = "https://models.example/trainer"
KEYS: dict[str, object] = {"api_keys": "lab:admin:a-key-of-the-lab-1"}


def attached(here: Place, message: StoredMessage) -> tuple[str, bytes]:
    [file] = message.attachments
    return text(file["filename"]), here.discord.read(file)


async def exported(here: Place, user: User, **options: str) -> StoredMessage:
    """The answer that has replaced the note on a model's export."""
    message = await here.ask(user, "export", **options)
    await until(lambda: "Exporting…" not in said(message))
    assert any("The file replaces this message." in shown_text(version.payload) for version in message.versions)
    return message


async def test_export__attaches_files_that_other_programs_read(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.bot(workers=0):
        story = Story(tmp_path / "artifacts", run_record("lstm-told", user_id=here.bob.id)).start()
        early = await here.ask(here.bob, "export", run="lstm-told", format="curves_csv")
        assert "`lstm-told` has no losses yet. Try again when it trains." in said(early)
        assert "Run not ready" in said(await here.ask(here.bob, "export", run="lstm-told"))
        assert "`/mt export` is only for" in said(await here.ask(here.bob, "export", run=RUN))
        files: dict[str, Path] = {}
        for form in ("hf", "archive", "torchscript", "ro-crate"):
            message = await exported(here, here.ana, run=RUN, format=form)
            assert is_hidden(message) and "📦 Export" in said(message)
            assert ("prefer `format:hf`" in said(message)) == (form == "torchscript")
            name, data = attached(here, message)
            files[name] = tmp_path / name
            files[name].write_bytes(data)
        assert [*files] == [f"{RUN}-hf.zip", f"{RUN}.tar", f"{RUN}-torchscript.zip", f"{RUN}-ro-crate.zip"]
        for name in (f"{RUN}-hf.zip", f"{RUN}-torchscript.zip"):
            with zipfile.ZipFile(files[name]) as packed:
                packed.extractall(tmp_path)
        record, _, _ = load_export(tmp_path / f"{RUN}-hf")
        assert (record.run_id, (tmp_path / f"{RUN}-torchscript" / "model.pt").is_file()) == (RUN, True)
        assert import_archive(files[f"{RUN}.tar"], tmp_path / "other").run_id == RUN
        assert list((tmp_path / "artifacts" / "exports").iterdir()) == []
        story.step(10, 3.0).step(20, 2.0, 2.25)
        curves = await here.ask(here.bob, "export", run="lstm-told", format="curves_csv")
        name, data = attached(here, curves)
        assert name == "lstm-told-curves.csv" and data.decode().splitlines() == [
            "step,epoch,train_loss,train_bits_per_char,val_loss,val_bits_per_char,learning_rate,grad_norm,"
            "tokens_per_second",
            f"10,1,3.0,{2 * 3.0 / log(2)},,,0.002,1.0,2000.0",  # two tokens per character
            f"20,1,2.0,{2 * 2.0 / log(2)},2.25,{2 * 2.25 / log(2)},0.002,1.0,2000.0",
        ]
        config = await here.ask(here.bob, "export", run="lstm-told", format="config")
        name, data = attached(here, config)
        (tmp_path / name).write_bytes(data)
        request = read_experiment(read_yaml(tmp_path / name), {}).request()
        corpus = story.record.effective.corpus
        again = resolve(request, corpus=corpus, validation_corpus=None, test_corpus=None)
        assert (name, request_hash(again)) == ("lstm-told.yaml", story.record.request_hash)


@asynccontextmanager
async def served(here: Place, **http: object) -> AsyncIterator[Bot]:
    values: dict[str, object] = {"port": 0, **http}
    groups = {"security": SecuritySettings.model_validate(KEYS), "http": HttpSettings.model_validate(values)}
    async with here.bot(workers=0, groups=groups) as bot:
        yield bot


async def fetched(bot: Bot, link: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    address = link.replace(PUBLIC, f"http://127.0.0.1:{bot.backend.port}")
    async with aiohttp.ClientSession() as session, session.request(method, address, headers=headers) as response:
        return response.status, await response.read()


async def test_large_export__has_a_signed_link_for_a_day_that_survives_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ATTACHMENT_BYTES", 1000)
    async with place(tmp_path) as here:
        async with served(here, public_url=PUBLIC):
            message = await exported(here, here.ana, run=RUN, format="archive")
        async with served(here, public_url=PUBLIC) as bot:
            found = re.search(rf"\[Download\]\(({PUBLIC}/\S+expires=(\d+)\S+)\)", said(message))
            assert found is not None
            link: str = found[1]
            status, data = await fetched(bot, link)
            [file] = (tmp_path / "artifacts" / "exports").rglob("*.tar")
            assert (status, data) == (200, file.read_bytes())
            size = len(data)
            assert await fetched(bot, link, Range=f"bytes={size - 2}-{size}") == (206, data[-2:])
            behind, error = await fetched(bot, link, Range=f"bytes={size}-")
            assert (behind, ErrorBody.model_validate_json(error).code) == (416, ErrorCode.RANGE_NOT_SATISFIABLE)
            assert await fetched(bot, link, method="HEAD") == (200, b"")
            assert abs(int(found[2]) - time.time() - LINK_SECONDS) < 3600
            for wrong in (link[:-1], link.replace("expires=", "expires=1"), link.replace(".tar", ".zip"), link + "é"):
                assert (await fetched(bot, wrong))[0] == 403
            old = await bot.backend.exports.link(file, PUBLIC, int(time.time()) - 1)
            assert (await fetched(bot, old))[0] == 403
            os.utime(file.parent, (0, 0))
            second = await here.ask(here.ana, "export", run=RUN, format="config")
            third = await exported(here, here.ana, run=RUN, format="archive")
            assert not file.exists() and (await fetched(bot, link))[0] == 404
            await exported(here, here.ana, run=RUN, format="archive")
            assert len([*(tmp_path / "artifacts" / "exports").rglob("*.tar")]) == 2, "a link that has not expired stays"
    key = tmp_path / "artifacts" / "links.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    assert message.attachments == [] and is_hidden(message) and "The link ends <t:" in said(message)
    assert len(second.attachments) == 1 and "Download" in said(third)


@pytest.mark.parametrize("http", [{}, {"public_url": PUBLIC, "port": None}])
async def test_large_export__without_a_public_address_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: dict[str, object]
) -> None:
    monkeypatch.setattr(limits, "ATTACHMENT_BYTES", 1000)
    async with place(tmp_path) as here, served(here, **http):
        message = await exported(here, here.ana, run=RUN, format="archive")
    assert number(message.embeds[0]["color"]) == AMBER and message.attachments == []
    assert re.search(r"The export has \d+\.\d kB, and Discord takes at most 1\.0 kB here\.", said(message))
    assert f"`mt export {RUN} --format archive --out NAME`" in said(message)
    assert list((tmp_path / "artifacts" / "exports").iterdir()) == []


def children() -> list[int]:
    """The processes of this one that export."""
    every = children_of_this_test()
    return [pid for pid in every if b"\0export\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_export__that_is_killed_cancelled_or_too_slow_leaves_nothing(tmp_path: Path) -> None:
    finished_run(tmp_path)
    chosen = settings_in(tmp_path)
    working = asyncio.create_task(Exports(chosen).export(RUN, "hf"))
    await until(lambda: bool(children()))
    os.kill(children()[0], signal.SIGKILL)
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "The export failed"):
        await working
    working = asyncio.create_task(Exports(chosen).export(RUN, "hf"))
    await until(lambda: bool(children()))
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "The export failed"):
        await Exports(chosen, export_seconds=0.01).export(RUN, "hf")
    with pytest.raises(AppError, match="There is no run 'nowhere'"):
        await Exports(chosen).export("nowhere", "hf")
    assert children() == [] and list((tmp_path / "artifacts" / "exports").iterdir()) == []


async def test_key_of_links__that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    finished_run(tmp_path)
    exports, key = Exports(settings_in(tmp_path)), tmp_path / "artifacts" / "links.key"
    key.write_bytes(b"short")
    file = tmp_path / "artifacts" / "exports" / "folder" / "a file.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    link = await exports.link(file, f"{PUBLIC}/", 2**40)
    found = re.fullmatch(rf"{PUBLIC}/exports/folder/a%20file.zip\?expires={2**40}&signature=([0-9a-f]{{64}})", link)
    assert found is not None and exports.find("folder/a file.zip", str(2**40), found[1]) == file.resolve()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
