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
from tests.support.bot import AMBER
from tests.support.inference import RUN, finished_run
from tests.support.inference_bot import Place, is_hidden, place, said
from tests.support.job_kinds import FAILURE
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.stories import Story, run_record
from tests.support.waiting import until
from tests.support.worker_runs import worker_in
from trainer.artifacts.command_jobs import KEPT_SECONDS, ExportStore
from trainer.artifacts.export_links import export_link, linked_file
from trainer.config.experiment_file import read_experiment, read_yaml
from trainer.config.presets import request_hash, resolve
from trainer.config.settings import HttpSettings, ObjectStoreSettings, SecuritySettings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode
from trainer.export.archive import import_archive
from trainer.export.folders import load_export
from trainer.lab.exports import exported_file, remove_export
from trainer.lab.here import OPERATOR, Here
from trainer.lab.lab import Lab
from trainer.lab.permissions import Permissions, no_member
from trainer.queue.queue import JobQueue
from trainer.queue.run_feeds import RunFeeds

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


@pytest.mark.slow
async def test_export__attaches_files_that_other_programs_read(tmp_path: Path) -> None:
    closed = {"security": SecuritySettings(open_weights=False)}
    async with place(tmp_path) as here, here.bot(workers=0, groups=closed), worker_in(tmp_path):
        story = Story(tmp_path / "artifacts", run_record("lstm-told", user_id=here.bob.id)).start()
        early = await here.ask(here.bob, "export", run="lstm-told", format="curves_csv")
        assert "`lstm-told` has no losses yet. Try again when it trains." in said(early)
        assert "Run not ready" in said(await here.ask(here.bob, "export", run="lstm-told"))
        assert "`/mt export` is only for" in said(await here.ask(here.bob, "export", run=RUN))
        files: dict[str, Path] = {}
        for form in ("hf", "archive", "torchscript"):
            message = await exported(here, here.ana, run=RUN, format=form)
            assert is_hidden(message) and "📦 Export" in said(message)
            assert ("prefer `format:hf`" in said(message)) == (form == "torchscript")
            name, data = attached(here, message)
            files[name] = tmp_path / name
            files[name].write_bytes(data)
        assert [*files] == [f"{RUN}-hf.zip", f"{RUN}.tar", f"{RUN}-torchscript.zip"]
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
        again = resolve(request, corpus=corpus)
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


@pytest.mark.slow
async def test_large_export__has_a_signed_link_for_a_day_that_survives_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ATTACHMENT_BYTES", 1000)
    async with place(tmp_path) as here, worker_in(tmp_path):
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
            assert abs(int(found[2]) - time.time() - KEPT_SECONDS) < 3600
            for wrong in (link[:-1], link.replace("expires=", "expires=1"), link.replace(".tar", ".zip"), link + "é"):
                assert (await fetched(bot, wrong))[0] == 403
            old = export_link(file, PUBLIC, int(time.time()) - 1)
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


@pytest.mark.slow
@pytest.mark.parametrize("http", [{}, {"public_url": PUBLIC, "port": None}])
async def test_large_export__without_a_public_address_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, http: dict[str, object]
) -> None:
    monkeypatch.setattr(limits, "ATTACHMENT_BYTES", 1000)
    async with place(tmp_path) as here, served(here, **http), worker_in(tmp_path):
        message = await exported(here, here.ana, run=RUN, format="archive")
    assert number(message.embeds[0]["color"]) == AMBER and message.attachments == []
    assert re.search(r"The export has \d+\.\d kB, and Discord takes at most 1\.0 kB here\.", said(message))
    assert f"`mt export {RUN} --format archive --out NAME`" in said(message)
    assert list((tmp_path / "artifacts" / "exports").iterdir()) == []


def exporting(folder: Path) -> list[int]:
    """The processes that export into an artifacts folder."""
    commands = Path("/proc").glob("[0-9]*/cmdline")
    place = f"\0{folder / 'exports'}/".encode()
    return [int(path.parent.name) for path in commands if place in _words(path)]


def _words(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.slow
async def test_export__ends_when_cancelled_and_starts_again_after_a_kill(tmp_path: Path) -> None:
    finished_run(tmp_path)
    async with embedded(tmp_path) as (chosen, _, _), worker_in(tmp_path) as worker:
        root, here = chosen.app.artifacts_root, Here(chosen)
        working = asyncio.create_task(exported_file(here.lab, OPERATOR, RUN, "hf"))
        await until(lambda: bool(exporting(root)))
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        await until(lambda: exporting(root) == [])
        [cancelled] = ExportStore(root).all()
        assert cancelled.state() == "cancelled"
        with pytest.raises(AppError, match="There is no run 'nowhere'"):
            await exported_file(here.lab, OPERATOR, "nowhere", "hf")
        working = asyncio.create_task(exported_file(here.lab, OPERATOR, RUN, "hf"))
        await until(lambda: bool(exporting(root)))
        [killed] = exporting(root)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: exporting(root) not in ([], [killed]))
        worker.kill()
        await worker.wait()
        async with worker_in(tmp_path):
            file = await working
        await here.close()
        with zipfile.ZipFile(file) as packed:
            assert packed.testzip() is None and f"{RUN}-hf/model.safetensors" in packed.namelist()
        assert {path.name for path in file.parent.glob(".*")} == set()


@pytest.mark.parametrize(("is_cancelled", "code"), [(True, ErrorCode.CANCELLED), (False, ErrorCode.OUT_OF_MEMORY)])
async def test_export__that_ends_without_a_file_says_why(
    tmp_path: Path, *, is_cancelled: bool, code: ErrorCode
) -> None:
    finished_run(tmp_path)
    async with embedded(tmp_path) as (settings, _, _):
        here, store = Here(settings), ExportStore(settings.app.artifacts_root)
        working = asyncio.create_task(exported_file(here.lab, OPERATOR, RUN, "hf"))
        await until(lambda: store.unfinished() != [])
        [export] = store.unfinished()
        if is_cancelled:
            export.request_cancel()
        else:
            export.fail(FAILURE)
        with refused(code, "The export was cancelled." if is_cancelled else FAILURE.message):
            await working
        assert store.ids() == ([export.job_id] if is_cancelled else [])
        await here.close()


async def test_export__stays_for_a_day_where_an_object_store_may_not_have_seen_its_end(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, _, store):
        away = changed(settings, object_store=ObjectStoreSettings(url="s3://bucket"))
        for one, stays in ((settings, False), (away, True)):
            file = tmp_path / "an-export" / "model.zip"
            file.parent.mkdir()
            queue = JobQueue(one, store)
            permissions = Permissions(one.discord, no_member)
            await remove_export(Lab(one, queue.stores, RunFeeds(queue.states), permissions, queue), file)
            assert file.parent.exists() == stays


async def test_export__without_a_worker_says_so_and_is_not_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.lab.exports._EXPORT_SECONDS", 0.01)
    async with place(tmp_path) as here, here.bot(workers=0):
        message = await exported(here, here.ana, run=RUN)
        [export] = ExportStore(tmp_path / "artifacts").all()
        assert export.cancel_requested() and not export.is_unfinished()
    told = [shown_text(version.payload) for version in message.versions]
    waits = "No worker is running. The job stays in the queue until one starts."
    assert ["Exporting…" in text for text in told if waits in text] == [True, False]


async def test_damaged_key_of_links__is_replaced(tmp_path: Path) -> None:
    finished_run(tmp_path)
    key = tmp_path / "artifacts" / "links.key"
    key.write_bytes(b"short")
    file = tmp_path / "artifacts" / "exports" / "folder" / "a file.zip"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    link = export_link(file, f"{PUBLIC}/", 2**40)
    found = re.fullmatch(rf"{PUBLIC}/exports/folder/a%20file.zip\?expires={2**40}&signature=([0-9a-f]{{64}})", link)
    assert found is not None and linked_file(key.parent, "folder/a file.zip", str(2**40), found[1]) == file
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
