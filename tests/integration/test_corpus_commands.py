"""`/mt corpus list`, `show` and `add` with the real bot."""

import re
from pathlib import Path

from local_discord import Upload
from local_discord.driver import shown_text
from tests.support import add_corpus
from tests.support.bot import AMBER, TEXT, Place, place
from tests.support.stories import run_record
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusNote
from trainer.contracts.runs import CorpusRef

LIST, HASH = "mt:corpora:list", "a" * 64


def corpus_files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "artifacts" / "corpora").glob("*"))


async def test_list__has_ten_corpora_a_page(tmp_path: Path) -> None:
    for number in range(11):
        add_corpus(tmp_path, "ab\n" * 3, f"many_{number:02}")
    add_corpus(tmp_path, "ɑb\n" * (1 << 19), "long_kk_ipa")
    folder = tmp_path / "data" / "corpus"
    (folder / "many_00.txt").write_bytes(b"\xff")
    (folder / "away.txt").symlink_to(folder / "deleted.txt")
    (folder / "other_manifest.json").write_text("{", encoding="utf-8")
    async with place(tmp_path) as here:
        message = await here.reply(here.bob, "corpus list")
        first = shown_text(message.payload)
        assert "📚 15 corpora · page 1 of 2" in first and message.visible_to == here.bob
        assert "**demo** · 203.9 kB" in first and "**long\\_kk\\_ipa** · 2.1 MB · kk · IPA" in first
        assert "**many\\_00** · 1 byte\n" in first and "**many\\_01** · 9 bytes · 3 lines" in first
        last = (await here.click(here.bob, message, f"{LIST}:1")).text
        assert "page 2 of 2" in last
        assert "**udhr\\_ipa** · 87.6 kB" in last and "az, fi, kk, ky, tr, ug, uz · IPA" in last
        opened = await here.discord.click(here.bob, message, f"{LIST.replace('corpora', 'corporapage')}:1")
        await (await here.discord.submit_modal(opened, {"page": "1"})).reply()
        assert "page 1 of 2" in shown_text(message.payload)


async def test_show__has_statistics_and_the_runs_that_the_caller_may_see(tmp_path: Path) -> None:
    add_corpus(tmp_path, "abba a\n\naé\u0301\n", "text")
    corpus = CorpusRef(name="text", sha256="0" * 64, bytes=1)
    async with place(tmp_path, private_runs=True) as here:
        for user, name in ((here.ana, "lstm-1"), (here.bob, "lstm-2")):
            effective = changed(run_record().effective, corpus=corpus, label=f"of {user.name}")
            here.story(user, name, effective=effective)
        answer = await here.ask(here.bob, "corpus show", {"corpus": "tex"})
    assert "📄 Corpus text" in answer.text and re.search(r"lines +2\n", answer.text)
    assert re.search(r"characters +9\ndistinct characters +5\n", answer.text)
    assert re.search(r"a +U\+0061 +4 +44.4%\nb +U\+0062 +2 +22.2%\n +U\+0020 +1 +11.1%\n", answer.text)
    assert re.search(r"\n +U\+0301 +1 +11.1%", answer.text)
    assert "1 run trained on it: of bob" in answer.text and answer.is_ephemeral


async def test_show__names_texts_attached_by_the_caller_and_refuses_others(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT), "name": "felines"})
        [run] = here.bot.lab.queue.runs.all()
        (tmp_path / "artifacts" / "corpora" / HASH).write_text("secret\n")
        own = await here.ask(here.bob, "corpus show", {"corpus": run.record().effective.corpus.name})
        assert "felines (attached)" in own.text and "1 run trained on it: felines" in own.text
        for name, said in ((HASH, "You have sent no text with this hash"), ("nothing", "There is no corpus 'nothing'")):
            refused = await here.ask(here.bob, "corpus show", {"corpus": name})
            assert said in refused.text and refused.colour == AMBER
        assert "No run was trained on it" in (await here.ask(here.bob, "corpus show", {"corpus": "demo"})).text


async def add(here: Place, text: bytes, name: str, **options: str | bool) -> str:
    upload = Upload("verses.txt", text)
    return (await here.ask(here.bob, "corpus add", {"file": upload, "name": name, **options})).text


async def test_add__stores_a_text_once_and_never_replaces_another(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        new = await add(here, b"men bol\nsen bol\n", "Kazakh: verses/1.txt", language="kk", ipa=False)
        assert "✅ Added: corpus Kazakh\\_verses\\_1" in new and "16 bytes · 2 lines · kk · usual spelling" in new
        assert "16 bytes · 2 lines · kk" in (await here.ask(here.bob, "corpus list")).text
        for text, name, said in (
            (b"men bol\nsen bol\n", "Kazakh verses 1", "📄 Already there: corpus Kazakh\\_verses\\_1"),
            (b"men\n", "Kazakh_verses_1", "There is another corpus 'Kazakh_verses_1': give another `name`."),
            (b"men\n", "demo", "There is another corpus 'demo'"),
        ):
            assert said in await add(here, text, name)
        table = Upload("a.jsonl", b'{"text": "men bol"}\n{"text": "sen bol"}\n')
        of_table = await here.ask(here.bob, "corpus add", {"file": table, "name": "verses.txt"})
        assert "✅ Added: corpus verses\n16 bytes · 2 lines" in of_table.text
    assert corpus_files(tmp_path) == ["Kazakh_verses_1.json", "Kazakh_verses_1.txt", "verses.json", "verses.txt"]
    folder = tmp_path / "artifacts" / "corpora"
    note = CorpusNote.model_validate_json((folder / "Kazakh_verses_1.json").read_bytes())
    assert note == CorpusNote(language="kk", is_ipa=False, lines=2, bytes=16, owners=(here.bob.id,))
    assert (folder / "verses.txt").read_bytes() == b"men bol\nsen bol\n"
