"""`/mt train` with all that it takes: options, warm starts, tokenizers, and an attached YAML file."""

import shutil
from pathlib import Path
from typing import TypeAlias

import pytest

from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.rest import FILES
from local_discord.state import Guild, User
from tests.support import ROOT, add_corpus
from tests.support.bot import AMBER, TEXT, Place, buttons, left, place
from tests.support.waiting import until
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import now
from trainer.contracts.runs import RunRecord
from trainer.system.hardware import may_have_cuda

YAML = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_bytes()
FINISHED = ROOT / "tests" / "fixtures" / "finished_run"
PARENT = "char_lstm-20261122-74f34df5"
Options: TypeAlias = dict[str, str | int | float | Upload]
CATS: Options = {"file": Upload("cats.txt", TEXT)}
ENDINGS = "whose name ends in .txt or .jsonl or .tsv or .csv."
TOKENIZER = ROOT / "tests" / "fixtures" / "tokenizers" / "char-222eba1359b17193"


def accepted(here: Place) -> RunRecord:
    """The one run of the chat."""
    records = [RunDirectory(path).record() for path in here.runs()]
    (record,) = [record for record in records if record.run_id != PARENT]
    return record


def texts(here: Place) -> list[str]:
    """The attached texts that were kept."""
    return [path.name for path in (here.root / "artifacts").glob("corpora/*") if path.suffix != ".json"]


async def test_options__reach_the_run(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        message = await here.reply(
            here.bob,
            "train",
            {"corpus": "cats", "model": "gru", "size": "tiny", "epochs": 2, "name": "small gru", "early_stopping": 3},
        )
        record, answer = accepted(here), shown_text(message.payload)
        assert "⏳ Queued: small gru" in answer and "GRU (tiny) of characters, 2 passes over the text" in answer
        details = (await here.click(here.bob, message, buttons(message)["Details"])).text
        assert "It has about" in details and "parameters and needs about 0.4 GiB of memory and" in details
        assert "gru tiny · 32/64/1 · char tokenizer · 2 epochs" in details
        assert "`learning_rate` " in details and "`learning_rate`" not in answer, "what rules have chosen"
        assert record.user_id == here.bob.id
        assert record.effective.early_stopping.patience == 3 and record.effective.early_stopping.enabled
        assert record.request.seed == 42 and "seed" not in record.request.model_fields_set


async def test_notify__chooses_the_channel_of_the_card_or_none(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        home = here.discord.add_guild("home", [here.bob])
        away = here.discord.add_guild("away", [here.bob], bot_present=False)

        async def train(notify: str, seed: int, guild: Guild | None) -> str:
            options: Options = {"file": Upload("cats.txt", TEXT), "seed": seed, "notify": notify}
            return shown_text((await here.reply(here.bob, "train", options, guild)).payload)

        assert "The bot may not post in this channel. Use `notify:dm`" in await train("here", 1, away)
        assert here.runs() == []
        await train("off", 2, home)
        (silent,) = here.runs()
        await train("here", 3, home)
        card = await here.discord.wait_for_message(home.channels[0], "Queued")
        (public,) = {*here.runs()} - {silent}
        for run in (silent, public):
            await here.bot.lab.queue.states.cancel(run.name)
        await here.discord.wait_for_message(home.channels[0], f"{public.name} · result")
        await here.discord.wait_for_edit(card, "Cancelled")
        told = here.discord.messages(home.channels[0])
        assert [silent.name in shown_text(one.payload) for one in told] == [False, False]
        assert here.discord.messages(here.discord.dm_channel(here.bob)) == []


async def test_training__that_cannot_fit_into_memory_is_refused_without_traces(tmp_path: Path) -> None:
    if may_have_cuda():
        pytest.skip("what a GPU here would have is not known")
    async with place(tmp_path) as here:
        answer = await here.ask(here.bob, "train", CATS | {"model": "llama", "size": "paper"})
        assert answer.colour == AMBER and "This training needs at least" in answer.text
        assert "`batch_size`, `max_seq_len` or the model smaller" in answer.text
        await until(lambda: left(tmp_path) == [])


async def test_text__that_is_not_given_is_the_one_used_last(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "cats")
    async with place(tmp_path) as here:
        await here.ask(here.bob, "train", {"corpus": "cats", "epochs": 2})
        here.story(here.ana, "lstm-ana", created_at=now())
        again = await here.ask(here.bob, "train", {"epochs": 3})
        assert "Corpus: cats" in again.text and "3 passes over the text" in again.text


async def test_text__with_a_non_latin_name_gives_its_run_and_corpus_that_name(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.discord.fail_next("GET", FILES, 503)
        for name, data in (("мәтін", TEXT), ("мәтін 2", TEXT + b"a\n")):
            answer = await here.ask(here.bob, "train", {"file": Upload(f"{name}.txt", data)})
            assert f"⏳ Queued: {name}-char\\_lstm\n" in answer.text
        offered = await here.suggested(here.bob, "train", "corpus", "мәт")
        assert {choice.name for choice in offered} == {"мәтін (attached)", "мәтін 2 (attached)"}
        settings: Options = {"config": Upload("баптау.yaml", YAML), "file": Upload("ئۇيغۇر.txt", TEXT + b"b\n")}
        assert "⏳ Queued: char-lstm-ipa" in (await here.ask(here.bob, "train", settings)).text
        scored = await here.ask(here.bob, "score", {"file": Upload("мәтін.txt", b"\xff")})
        assert "no completed run" in scored.text


async def test_size__is_suggested_from_the_presets_of_all_families(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for typed, sizes in (("gram", ["unigram", "bigram", "trigram"]), ("s", ["small", "base"])):
            assert [choice.value for choice in await here.suggested(here.bob, "train", "size", typed)] == sizes


async def test_warm_start__takes_the_family_and_the_tokenizer_of_a_completed_run(tmp_path: Path) -> None:
    shutil.copytree(FINISHED, tmp_path, dirs_exist_ok=True)
    async with place(tmp_path) as here:
        suggested = await here.suggested(here.bob, "train", "init_from", PARENT[-6:])
        options: Options = {"corpus": "text", "init_from": str(suggested[0].value), "freeze_embeddings": True}
        answer = await here.ask(here.bob, "train", options)
        record = accepted(here)
        assert "⏳ Queued: text" in answer.text
        assert record.effective.init_from_run_id == PARENT and record.effective.freeze_embeddings
        assert record.effective.tokenizer_id is not None


async def test_warm_start__from_an_unusable_or_private_run_leaves_no_files(tmp_path: Path) -> None:
    async with place(tmp_path, private_runs=True) as here:
        here.story(here.ana, "lstm-ana")
        config = Upload("a.yaml", YAML + b"  init_from_run_id: lstm-ana\n")
        refusals: list[tuple[User, Options, str]] = [
            (here.bob, {"init_from": "lstm-ana"}, "🔒"),
            (here.bob, {"config": config}, "🔒"),
            (here.ana, {"init_from": "lstm-ana"}, "`init_from` names no completed run"),
            (here.ana, {"init_from": "../x"}, "There is no run"),
        ]
        for user, options, said in refusals:
            answer = await here.ask(user, "train", CATS | options)
            assert said in answer.text
        assert len(here.runs()) == 1 and texts(here) == []


async def test_tokenizer__that_exists_is_taken_unless_an_option_names_another(tmp_path: Path) -> None:
    shutil.copytree(TOKENIZER, tmp_path / "artifacts" / "tokenizers" / TOKENIZER.name)
    unfit: Options = {"file": Upload("x.txt", b"###\n%%%\n$$$\n"), "tokenizer": TOKENIZER.name}
    async with place(tmp_path) as here:
        assert "does not know" in (await here.ask(here.bob, "train", unfit)).text
        unknown = await here.ask(here.bob, "train", CATS | {"tokenizer": "char-0123456789abcdef"})
        assert "`tokenizer`" in unknown.text and "There is no tokenizer" in unknown.text
        assert here.runs() == [] and texts(here) == []
        await here.ask(here.bob, "train", CATS | {"tokenizer": TOKENIZER.name})
        assert accepted(here).effective.tokenizer_id == TOKENIZER.name


async def test_config__is_read_as_on_the_command_line_and_what_is_typed_wins(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        data = YAML.replace(b"logging: {}", b"logging: {max_log_files: 3}")
        options: Options = {"config": Upload("kk.yaml", data), "file": Upload("cats.txt", TEXT), "epochs": 2}
        answer = await here.ask(here.bob, "train", options)
        record = accepted(here)
        assert "⏳ Queued: char-lstm-ipa" in answer.text and "attached text" in answer.text
        assert record.effective.num_epochs == 2
        assert record.effective.optimizer.eps == 1e-8 and record.effective.test_fraction == 0.10
        assert record.requested_paths == ("tokenizers/char-lstm-ipa", "models/char-lstm-ipa", "logs")
        folder = {"training.output_dir": "models/char-lstm-ipa"}
        assert record.unused_settings == {**folder, "logging.max_log_files": 3}
        assert "Ignored settings: `training.output_dir`, `logging.max_log_files`." in answer.text
        assert texts(here) == [record.effective.corpus.sha256]


async def test_config__alone_names_one_of_the_corpora(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(TEXT)
    for name in ("cats", "cat_walk"):
        add_corpus(tmp_path, TEXT.decode(), name)
    async with place(tmp_path) as here:
        path = YAML.replace(b"training_corpus: demo", f"training_corpus: {tmp_path}/secret.txt".encode())
        relative = YAML.replace(b"training_corpus: demo", b"training_corpus: secret")
        refused = [await here.ask(here.bob, "train", {"config": Upload("kk.yml", data)}) for data in (path, relative)]
        assert all(one.colour == AMBER for one in refused) and here.runs() == []
        assert "There is no corpus 'secret'" in refused[1].text
        several = await here.ask(here.bob, "train", {"corpus": "cat"})
        assert "'cat' names 2 corpora: cat_walk, cats. Give more of the name." in several.text
        await here.ask(here.bob, "train", {"corpus": "cat_", "size": "tiny", "tokenizer": "char"})
        assert (accepted(here).effective.label, accepted(here).request.corpus) == ("cat_walk-char_lstm", "cat_walk")
        answer = await here.ask(here.bob, "train", {"config": Upload("kk.yml", YAML), "name": "mine"})
        assert "⏳ Queued: mine" in answer.text and "Corpus: demo" in answer.text
