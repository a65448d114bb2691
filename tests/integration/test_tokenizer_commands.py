"""`/mt tokenizer train`, `list` and `show` with the real bot and a worker."""

import shutil
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from local_discord import Upload
from local_discord.driver import shown_text
from tests.support import ROOT, add_corpus, some_text
from tests.support.bot import AMBER, TEXT, place
from tests.support.lab import Lab
from tests.support.waiting import until
from trainer.artifacts.tokenizers import TokenizerStore

TOKENIZER = ROOT / "tests" / "fixtures" / "tokenizers" / "char-222eba1359b17193"


async def test_tokenizer__is_trained_listed_and_shown(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(80) + "\nz", "more")
    options: dict[str, str | int] = {"corpora": "text, more,", "method": "bpe", "vocab_size": 60, "name": "both texts"}
    async with place(lab.folder) as here:
        accepted = await here.ask(here.bob, "tokenizer train", {**options})
        assert ": tokenizer both texts" in accepted.text and "bpe · corpora text, more" in accepted.text
        [tokenizer] = [
            one for one in TokenizerStore(lab.folder / "artifacts").all() if one.status().label == "both texts"
        ]
        await until(lambda: tokenizer.status().status == "completed")
        stats = tokenizer.completed_manifest().stats
        listed = await here.ask(here.bob, "tokenizer list")
        assert f"✅ **both texts** · `{tokenizer.tokenizer_id}` · 60 tokens" in listed.text
        shown = await here.ask(here.bob, "tokenizer show", {"tokenizer": f" {tokenizer.tokenizer_id} "})
        assert "✅ Completed: tokenizer both texts" in shown.text and "vocabulary  60 tokens" in shown.text
        figures = f"{stats.avg_tokens_per_char:.3f} per character"
        assert f"{stats.coverage:.1%} of tokens" in shown.text and figures in shown.text
        [suggested] = await here.suggested(here.bob, "tokenizer show", "tokenizer", "both")
        assert suggested.value == tokenizer.tokenizer_id
        again = await here.ask(here.bob, "tokenizer train", {**options})
        assert "✅ Completed: tokenizer both texts" in again.text and "direct messages" not in again.text
        assert accepted.is_ephemeral and listed.is_ephemeral and shown.is_ephemeral


async def test_train__suggests_the_last_corpus_and_refuses_wrong_ones(tmp_path: Path) -> None:
    for name in ("kk", "ky"):
        add_corpus(tmp_path, "a\nb\nc\n", name)
    async with place(tmp_path) as here:
        first = await here.suggested(here.bob, "tokenizer train", "corpora", "k")
        second = await here.suggested(here.bob, "tokenizer train", "corpora", "kk,k")
        assert {"kk", "ky"} <= {choice.value for choice in first}
        assert "kk,ky" in {choice.value for choice in second} and "kk,kk" not in {choice.value for choice in second}
        for corpora, refusal in (
            ("nothing", "There is no corpus 'nothing'"),
            (" , ", "`corpora` must have at least 1 item"),
            ("demo,demo", "`corpora` must name different texts"),
        ):
            answer = await here.ask(here.bob, "tokenizer train", {"corpora": corpora})
            assert refusal in answer.text and answer.colour == AMBER
            assert TokenizerStore(tmp_path / "artifacts").all() == []
        answer = await here.ask(here.bob, "tokenizer train", {"corpora": "demo"})
        assert "⏳ Queued: tokenizer" in answer.text and "char · corpus demo" in answer.text
        assert "No worker is running" in answer.text and "direct messages" in answer.text
        here.discord.set_dms(here.bob, is_open=False)
        answer = await here.ask(here.bob, "tokenizer train", {"corpora": "kk"})
        assert "This bot cannot send you direct messages. Use `/mt tokenizer show`" in answer.text


async def test_files_of_a_tokenizer__come_as_an_archive(tmp_path: Path) -> None:
    shutil.copytree(TOKENIZER, tmp_path / "artifacts" / "tokenizers" / TOKENIZER.name)
    async with place(tmp_path) as here:
        button = f"mt:jobfiles:{TOKENIZER.name}:tokenizer"
        message = await here.message_with(here.bob, button)
        answer = await (await here.discord.click(here.bob, message, button)).reply()
        await until(lambda: bool(answer.attachments))
        with ZipFile(BytesIO(here.discord.read(answer.attachments[0]))) as archive:
            stored = {name: archive.read(name) for name in archive.namelist()}
    assert stored == {path.name: path.read_bytes() for path in TOKENIZER.iterdir() if path.name in stored} != {}
    assert "report.html" not in shown_text(answer.payload)


async def test_tokenizer__of_an_attached_text_is_visible_with_a_run_on_it(tmp_path: Path) -> None:
    async with place(tmp_path, private_runs=True) as here:
        people = (here.bob, here.discord.add_user("carl"))
        await here.bot.backend.access.set(people[1].id, "user")
        await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT)})
        corpora = sha256(TEXT).hexdigest()
        trained = await here.ask(here.bob, "tokenizer train", {"corpora": corpora, "name": "secret"})
        [tokenizer] = TokenizerStore(tmp_path / "artifacts").all()
        listed = [(await here.ask(one, "tokenizer list")).text for one in people]
        shown = [(await here.ask(one, "tokenizer show", {"tokenizer": tokenizer.tokenizer_id})).text for one in people]
        assert "tokenizer secret" in trained.text and "secret" in listed[0] and "tokenizer secret" in shown[0]
        assert "No tokenizers yet." in listed[1] and "This tokenizer is only for its owner and admins" in shown[1]
