"""`/mt tokenizer train`, `list` and `show` with the real bot and a worker."""

from pathlib import Path

from local_discord.driver import shown_text
from tests.support import add_corpus, some_text
from tests.support.bot import AMBER, place, read
from tests.support.lab import Lab
from tests.support.waiting import until
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest


def tokenizers(root: Path) -> list[TokenizerDirectory]:
    return [TokenizerDirectory(path) for path in sorted((root / "artifacts" / "tokenizers").glob("*-*"))]


async def test_tokenizer__is_trained_listed_and_shown(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(80) + "\nz", "more")
    async with place(lab.folder) as here:
        options: dict[str, str | int] = {"corpora": "text, more,", "method": "bpe", "vocab_size": 60}
        options |= {"name": "two texts"}
        accepted = await here.ask(here.bob, "tokenizer train", {**options})
        [tokenizer] = [one for one in tokenizers(lab.folder) if one.status().label == "two texts"]
        await until(lambda: tokenizer.status().status == "completed")
        listed = await here.ask(here.bob, "tokenizer list")
        name = {"tokenizer": f" {tokenizer.tokenizer_id} "}
        shown = await here.ask(here.bob, "tokenizer show", name)
        [suggested] = await here.suggested(here.bob, "tokenizer show", "tokenizer", "two")
        again = await here.ask(here.bob, "tokenizer train", {**options})
    assert "✅ Tokenizer two texts: completed" in again.text
    assert "direct messages" in accepted.text and "direct messages" not in again.text
    stats = tokenizer.completed_manifest().stats
    assert "Tokenizer two texts" in accepted.text and "bpe · corpora text, more" in accepted.text
    assert f"✅ **two texts** · `{tokenizer.tokenizer_id}` · 60 tokens" in listed.text
    assert "✅ Tokenizer two texts: completed" in shown.text and "Vocabulary 60 tokens" in shown.text
    assert f"{stats.coverage:.2%}" in shown.text and f"{stats.avg_tokens_per_char:.3f} tokens per char" in shown.text
    assert suggested.value == tokenizer.tokenizer_id
    assert accepted.is_ephemeral and listed.is_ephemeral and shown.is_ephemeral


async def test_train__suggests_the_last_corpus_refuses_and_says_what_is_missing(tmp_path: Path) -> None:
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
            assert tokenizers(tmp_path) == []
        answer = await here.ask(here.bob, "tokenizer train", {"corpora": "demo"})
        assert "⏳ Tokenizer" in answer.text and "char · corpus demo" in answer.text
        assert "No worker is running" in answer.text
        here.discord.set_dms(here.bob, is_open=False)
        answer = await here.ask(here.bob, "tokenizer train", {"corpora": "kk"})
        assert "This bot cannot send you direct messages. Use `/mt tokenizer show`" in answer.text


async def test_tokenizer__of_private_runs_is_hidden(tmp_path: Path) -> None:
    async with place(tmp_path, private_runs=True) as here:
        await here.ask(here.ana, "tokenizer train", {"corpora": "demo", "name": "secret"})
        [tokenizer] = tokenizers(tmp_path)
        run = here.story(here.ana, "lstm-1").run
        effective = changed(run.record().effective, tokenizer_id=tokenizer.tokenizer_id)
        (run.path / "request.json").write_text(changed(run.record(), effective=effective).model_dump_json())
        listed = await here.ask(here.bob, "tokenizer list")
        shown = await here.ask(here.bob, "tokenizer show", {"tokenizer": tokenizer.tokenizer_id})
        own = await here.ask(here.ana, "tokenizer list")
    assert "No tokenizers yet." in listed.text and "secret" in own.text
    assert "only of private runs of other people" in shown.text


async def test_list__turns_its_pages(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for size in range(16, 27):
            fields: dict[str, object] = {"method": "char", "corpora": ["demo"], "vocab_size": size}
            await here.bot.queue.train_tokenizer(parse(TokenizerTrainRequest, fields))
        call = await here.discord.slash(here.bob, "mt tokenizer list")
        first = await read(call)
        message = await call.reply()
        await read(await here.discord.click(here.bob, message, "mt:tokenizers:list:1"))
        assert "11 tokenizers · page 1 of 2" in first.text and first.text.count("⏳") == 10
        await until(lambda: "page 2 of 2" in shown_text(message.payload))
        assert shown_text(message.payload).count("⏳") == 1
        opened = await here.discord.click(here.bob, message, "mt:tokenizerspage:list:1")
        await (await here.discord.submit_modal(opened, {"page": "1"})).reply()
        assert "page 1 of 2" in shown_text(message.payload)
