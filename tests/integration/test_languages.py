"""Messages in the language of each reader: answers, cards, final messages and refusals, in one bot."""

from pathlib import Path

import pytest

from local_discord.driver import shown_text
from local_discord.state import User
from tests.support import add_corpus
from tests.support.bot import TEXT, Place, place


async def train_and_cancel(here: Place, user: User, epochs: int, final: str) -> tuple[str, str]:
    """The answer to `/mt train`, and the card of the run, which is cancelled before it starts."""
    known = set(here.runs())
    answer = await here.ask(user, "train", {"corpus": "languages", "epochs": epochs})
    (run,) = set(here.runs()) - known
    channel = here.discord.dm_channel(user)
    card = await here.discord.wait_for_message(channel, run.name)
    shown = shown_text(card.payload)
    await here.ask(user, "cancel", {"run": run.name})
    await here.discord.wait_for_message(channel, final, after=card)
    return answer.text, shown


@pytest.mark.parametrize(
    ("locale", "epochs", "card", "final", "refusal", "result"),
    [
        (
            "ru",
            {1: "1 эпоха", 2: "2 эпохи", 5: "5 эпох"},
            "⏳ В очереди: languages",
            "⏹ Отменён: languages",
            "Укажите ровно одно: `corpus`",
            "Тест **1,000** нат/токен · 1,50 бит/символ · перплексия 2,72",
        ),
        (
            "tr",
            {1: "1 epok", 2: "2 epok"},
            "⏳ Sırada: languages",
            "⏹ İptal edildi: languages",
            "seçeneklerinden tam birini verin",
            "Sınama **1,000** nat/token · 1,50 bit/karakter · şaşkınlık 2,72",
        ),
    ],
)
async def test_messages__are_in_the_language_of_who_gets_them(
    tmp_path: Path, locale: str, epochs: dict[int, str], card: str, final: str, refusal: str, result: str
) -> None:
    add_corpus(tmp_path, TEXT.decode(), "languages")
    async with place(tmp_path) as here:
        reader = here.discord.add_user("reader", locale=locale)
        await here.bot.access.set(reader.id, "user")
        assert refusal in (await here.ask(reader, "train")).text
        for number, shown in epochs.items():
            answer, first = await train_and_cancel(here, reader, number, final)
            assert f" · {shown}\n" in answer and card in answer
            assert f" · {shown} · " in first and card in first

        answer, first = await train_and_cancel(here, here.bob, 2, "⏹ Cancelled: languages")
        assert " · 2 epochs\n" in answer and "⏳ Queued: languages" in first

        story = here.story(reader, f"languages-{locale}")
        await here.ask(reader, "watch", {"run": story.record.run_id})
        await here.ask(here.bob, "watch", {"run": story.record.run_id})
        story.start().complete()
        here.bot.notifier.follow(story.record.run_id)
        ended = f"{story.record.run_id} · result"
        own = await here.discord.wait_for_message(here.discord.dm_channel(reader), ended)
        other = await here.discord.wait_for_message(here.discord.dm_channel(here.bob), ended)
        assert result in shown_text(own.payload)
        assert "Test **1.000** nats/token · 1.50 bits/char · perplexity 2.72" in shown_text(other.payload)
