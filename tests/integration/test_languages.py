"""Messages in the language of each reader: answers, cards, final messages and refusals, in one bot."""

import re
from collections.abc import Mapping
from math import log
from pathlib import Path

import pytest

from bot.people.user_settings import UserSettings
from local_discord import Upload
from local_discord.driver import shown_text
from local_discord.state import User
from tests.support import add_corpus
from tests.support.bot import TEXT, Place, place
from tests.support.readings import times_table


async def train_and_cancel(here: Place, user: User, epochs: int, final: str) -> tuple[str, str]:
    """The answer to `/mt train`, and the card of the run, which is cancelled before it starts."""
    known = set(here.runs())
    answer = await here.ask(user, "train", {"corpus": "languages", "epochs": epochs})
    (run,) = set(here.runs()) - known
    card = await here.message(user, run.name)
    shown = shown_text(card.payload)
    await here.ask(user, "cancel", {"run": run.name})
    await here.discord.wait_for_message(card.channel, final, after=card)
    return answer.text, shown


async def test_messages__are_in_the_language_of_their_reader(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT.decode(), "languages")
    async with place(tmp_path) as here:
        reader = here.discord.add_user("reader", locale="ru")
        await here.bot.backend.access.set(reader.id, "user")
        assert "Укажите ровно одно: `corpus`" in (await here.ask(reader, "train")).text
        answer, card = await train_and_cancel(here, reader, 5, "⏹ Отменён: languages")
        assert "5 проходов по тексту" in answer and " · 5 эпох" in card
        assert all("⏳ В очереди: languages" in text for text in (answer, card))
        assert english_in(f"{answer}\n{card}") == []
        answer, card = await train_and_cancel(here, here.bob, 2, "⏹ Cancelled: languages")
        assert "2 passes over the text" in answer and "⏳ Queued: languages" in card

        story = here.story(reader, "languages-ru")
        for user in (reader, here.bob):
            await here.ask(user, "watch", {"run": story.record.run_id})
        await here.bot.user_settings.save(reader.id, UserSettings(unit="nats"))
        story.start().complete()
        here.bot.notifier.follow(story.record.run_id)
        for user, figures in (
            (reader, f"Тест **1,000** нат/токен · {1.5 * log(2):.3f} нат/символ · перплексия 2,72".replace(".", ",")),
            (here.bob, f"Test **{1 / log(2):.3f}** bits/token · 1.500 bits/char · perplexity 2.72"),
        ):
            result = await here.message(user, f"languages-ru · {'итог' if user is reader else 'result'}")
            assert figures in shown_text(result.payload)


Options = Mapping[str, str | int | float | Upload]
TABLE = times_table().encode()
MISTAKES: list[tuple[str, Options]] = [
    ("train", {"corpus": "nothere"}),
    ("train", {"corpus": "tiny"}),
    ("train", {"corpus": "languages", "minutes": 2, "epochs": 3}),
    ("train", {"corpus": "languages", "minutes": 2, "max_steps": 3}),
    ("train", {"corpus": "languages", "seeds": "one"}),
    ("train", {"corpus": "languages", "seeds": "2", "search": 3}),
    ("train", {"corpus": "languages", "model": "gpt2", "size": "vast"}),
    ("train", {"corpus": "languages", "model": "bert", "tokenizer": "word"}),
    ("train", {"corpus": "languages", "tokenizer": "char-00000000"}),
    ("train", {"corpus": "languages", "model": "char_lstm", "tokenizer": "bpe"}),
    ("train", {"corpus": "languages", "init_from": "nothere"}),
    ("train", {"corpus": "languages", "name": "last"}),
    ("train", {"corpus": "languages", "batch_size": 4, "devices": 8}),
    ("train", {"corpus": "languages", "model": "ngram", "learning_rate": 0.1}),
    ("train", {"corpus": "languages", "freeze_embeddings": True}),
    ("train", {"corpus": "languages", "config": Upload("plan.yaml", b"num_epochs: many\nsplit_by: page\n")}),
    ("train", {"config": Upload("plan.yaml", b"corpus: languages\nepoch: 3\n")}),
    ("train", {"config": Upload("plan.yaml", b"- [")}),
    ("train", {"config": Upload("plan.yaml", b"a: &x 1\n")}),
    ("train", {"file": Upload("text.txt", b"\xff\xfea\0b\0")}),
    ("train", {"file": Upload("text.txt", b"%PDF-1.7 and more")}),
    ("train", {"file": Upload("text.txt", b"abc\xffdef\n" * 9)}),
    ("train", {"file": Upload("text.txt", b"one line only\n")}),
    ("train", {"file": Upload("texts.csv", b"sentence,number\na,1\n")}),
    ("train", {"file": Upload("texts.jsonl", b"{}\n")}),
    ("corpus add", {"file": Upload("empty.txt", b""), "name": "empty"}),
    ("corpus show", {"corpus": "nothere"}),
    ("corpus delete", {"corpus": "nothere"}),
    ("status", {"run": "nothere"}),
    ("cancel", {"run": "nothere"}),
    ("resume", {"run": "done"}),
    ("resume", {"run": "nothere"}),
    ("logs", {"run": "nothere"}),
    ("compare", {"a": "done", "b": "done"}),
    ("score", {"run": "nothere", "text": "abc"}),
    ("score", {"run": "done", "text": " "}),
    ("generate", {"run": "failed", "prompt": "a"}),
    ("eval", {"run": "failed"}),
    ("export", {"run": "failed"}),
    ("unlock", {"run": "nothere"}),
    ("tokenizer train", {"corpora": "nothere"}),
    ("tokenizer show", {"tokenizer": "nothere"}),
    ("mt-battery show", {"battery": "nothere"}),
    ("mt-battery start", {"run": "done", "battery": "nothere"}),
    ("mt-study start", {"corpus": "nothere"}),
    ("mt-study start", {"config": Upload("study.yaml", b"name: A B\ntrain: {corpus: languages, seeds: 2}\n")}),
    ("mt-study show", {"study": "nothere"}),
    ("mt-reading start", {"run": "done", "data": Upload("times.csv", b"a,b\n1,2\n")}),
    ("mt-reading start", {"run": "nothere", "data": Upload("times.csv", TABLE)}),
    ("mt-reading show", {"reading": "nothere"}),
]
"""Commands with what people get wrong: names, settings, files, states of runs."""
_NAMED = re.compile(r"`[^`]*`|'[^'\s]*'|«[^»]*»|\([^)]*\.(?:txt|csv)[^)]*\)")
"""Code, names and values, which stay as they are."""
_ENGLISH = re.compile(r"\b(?:the|of|is|are|must|give|with|and|or|you|for|to|from|leave|its|that|this|which|a)\b")
"""Words without which English has hardly a sentence, and which are no words of the other languages."""


def english_in(answer: str) -> list[str]:
    """Return the English words in an answer that are no names of fields, files, commands and values."""
    found: list[str] = _ENGLISH.findall(_NAMED.sub("§", answer))
    return found


@pytest.mark.parametrize("locale", ["ru", "tr"])
async def test_mistakes__are_answered_without_an_english_word(tmp_path: Path, locale: str) -> None:
    add_corpus(tmp_path, TEXT.decode(), "languages")
    add_corpus(tmp_path, "one line\n", "tiny")
    async with place(tmp_path) as here:
        reader = here.discord.add_user("reader", locale=locale)
        await here.bot.backend.access.set(reader.id, "user")
        here.story(reader, "done").start().complete()
        here.story(reader, "failed").start().fail()
        found = {}
        for command, options in MISTAKES:
            answer = (await here.ask(reader, command, options)).text
            if words := english_in(answer):
                found[f"/{command} {dict(options)}"] = (words, answer)
        assert found == {}
