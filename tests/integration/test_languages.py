"""Messages in the language of each reader: answers, cards, final messages and refusals, in one bot."""

from math import log
from pathlib import Path

from bot.people.user_settings import UserSettings
from local_discord.driver import shown_text
from local_discord.state import User
from tests.support import add_corpus
from tests.support.bot import TEXT, Place, place


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
        assert "; 5 проходов по тексту" in answer and " · 5 эпох" in card
        assert all("⏳ В очереди: languages" in text for text in (answer, card))
        answer, card = await train_and_cancel(here, here.bob, 2, "⏹ Cancelled: languages")
        assert ", 2 passes over the text" in answer and " · 2 epochs · " in card and "⏳ Queued: languages" in card

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
            assert figures in shown_text((await here.message(user, "languages-ru · result")).payload)
