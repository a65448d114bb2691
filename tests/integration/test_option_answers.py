"""Every option of every command at its edges: least, greatest, just outside, empty, longest, and odd text."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from discord import AppCommandOptionType
from discord.app_commands import Parameter

from bot.commands.help import CommandInfo, all_commands, command_name
from bot.session.client import Bot
from local_discord import ClientRefusal, LocalDiscord, Upload
from local_discord.client import OptionValue
from local_discord.driver import shown_text
from local_discord.state import Call, Guild, StoredMessage, User
from local_discord.wire import number, text
from tests.support import add_corpus, some_text
from tests.support.bot import AMBER
from tests.support.bot import place as training_place
from tests.support.inference import RUN
from tests.support.inference_bot import place
from tests.support.readings import times_table
from tests.support.waiting import PATIENCE_SECONDS
from trainer.lab.permissions import typed_command

LONGEST = 6000  # characters of an option without a limit of its own, by Discord
FORM = 9  # the type of an answer that opens a form
MAX_REFUSAL = 400
ODD = "\u202e`@everyone`\u0301 \x1b[31m\u200b<@1> **{0}** %s ../../etc \U0001f600"
CORPUS, STARTED = "edges", "char_lstm-edges"
READING = ("status", "logs", "compare", "generate", "chat", "score", "predict", "eval")
"""Commands that change nothing: they are tried on a completed run that other tests share."""
HUB = ("oscar", "culturax")
"""Sources of `/mt-admin build-corpora` that need the internet."""
USUAL: dict[str, OptionValue] = {
    "a": RUN,
    "b": RUN,
    "message": "abc",
    "text": "abc",
    "prompt": "abc",
    "corpora": CORPUS,
    "source": "local",
    "file": Upload("lines.txt", b"a b c\n" * 20),
    "data": Upload("times.csv", times_table().encode()),
    "name": "edges",
    "tokenizer": "char-0000000000000000",
    "experiment": "smoke-00000000",
    "level": "user",
}
"""Values of required options, and of those without which a form opens."""
FORMS_WITHOUT = (("generate", "prompt"), ("score", "text"))


def edges(command: str, parameter: Parameter, people: tuple[User, User]) -> Iterator[OptionValue]:
    """Yield what Discord lets a person send at the edges of an option."""
    kind, least, greatest = parameter.type, parameter.min_value, parameter.max_value
    if parameter.choices:
        yield from (choice.value for choice in parameter.choices if choice.value not in HUB)
    elif kind is AppCommandOptionType.string:
        longest = LONGEST if greatest is None else int(greatest)
        yield from [" ", "x" * longest, (ODD * longest)[:longest]] + ([] if least else [""])
    elif kind is AppCommandOptionType.boolean:
        yield from (True, False)
    elif kind is AppCommandOptionType.user:
        yield from people
    elif kind is AppCommandOptionType.attachment:
        long_name = "x" * 200
        yield from (Upload("empty.txt", b""), Upload("odd.txt", b"\xff\x00"), Upload(f"{long_name}.txt", b"a\n" * 9000))
        yield from (Upload("picture.png", b"png"), Upload("list.yaml", b"- ["), Upload("lines.jsonl", b"{}\n"))
    else:
        assert least is not None and greatest is not None, f"{command} {parameter.display_name} has no bounds"
        yield from (least, greatest)


def outside(parameter: Parameter) -> Iterator[OptionValue]:
    """Yield what is just outside of the edges that Discord knows."""
    least, greatest = parameter.min_value, parameter.max_value
    if parameter.type is AppCommandOptionType.string:
        yield from ["x" * (int(greatest) + 1)] if greatest is not None else []
        yield from [""] if least else []
    elif least is not None and greatest is not None:
        step = 1 if parameter.type is AppCommandOptionType.integer else 0.001
        yield from (least - step, greatest + step)


def usual(command: CommandInfo, **changes: OptionValue) -> dict[str, OptionValue]:
    """Return options with which the command works, as far as it can here."""
    name = command_name(command)
    known = USUAL | changes
    needed = [
        one.display_name
        for one in command.parameters
        if one.required or (name, one.display_name) in FORMS_WITHOUT or one.display_name in changes
    ]
    return {option: known[option] for option in needed if option in known}


class Person:
    """The owner of a bot, who types every option."""

    def __init__(self, discord: LocalDiscord, user: User, guild: Guild, options: Mapping[str, OptionValue]) -> None:
        self._discord, self._user, self._guild, self._options = discord, user, guild, options

    async def try_all(self, bot: Bot, *, are_reading: bool) -> int:
        """Type each option of the commands at its edges; return the number of calls."""
        calls = 0
        for command in all_commands(bot):
            name = command_name(command)
            if (name in READING) is not are_reading:
                continue
            base = usual(command, **self._options)
            for parameter in command.parameters:
                for value in outside(parameter):
                    with pytest.raises(ClientRefusal):
                        await self._type(name, {**base, parameter.display_name: value})
                for value in edges(name, parameter, (self._user, self._guild.members[-1])):
                    await self._check(name, {**base, parameter.display_name: value}, parameter.display_name)
                    calls += 1
                if parameter.autocomplete and not name.startswith("mt-admin"):
                    for typed in ("", ODD, "x" * LONGEST):
                        found = await self._discord.autocomplete(
                            self._user, typed_command(name).removeprefix("/"), parameter.display_name, typed
                        )
                        assert len(found) <= 25
        return calls

    async def _type(self, name: str, options: Mapping[str, OptionValue]) -> Call:
        guild = self._guild if name.startswith("mt-admin") else None
        return await self._discord.slash(self._user, typed_command(name).removeprefix("/"), options, guild=guild)

    async def _check(self, name: str, options: Mapping[str, OptionValue], option: str) -> None:
        """A call opens a form, or has an answer; a refusal is short, and none is an internal error."""
        call = await self._type(name, options)
        where = f"/{name} {option}:{str(options[option])[:50]!r}"
        await call.changes.until(lambda: answer_of(call) or call.callback_type == FORM, PATIENCE_SECONDS, where)
        message = answer_of(call)
        if message is None:
            return
        said = shown_text(message.payload)
        assert said.strip() and "Internal error" not in said, (where, said)
        [embed, *_] = message.embeds
        if number(embed["color"]) == AMBER and "✋" in text(embed.get("title")):
            lines = text(embed["description"]).split("\n")
            is_sentence = len(lines) == 1 and lines[0].endswith((".", "?"))
            assert is_sentence or all(line.startswith("• ") for line in lines), (where, said)
            assert all(0 < len(line) <= MAX_REFUSAL for line in lines), (where, said)


def answer_of(call: Call) -> StoredMessage | None:
    if call.followups:
        return call.followups[0]
    original = call.original
    return None if original is None or original.is_loading else original


@pytest.mark.slow
async def test_reading_commands__answer_or_refuse_extreme_options(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0) as bot:
        guild = here.discord.add_guild("lab", [here.ana, here.bob])
        person = Person(here.discord, here.ana, guild, {"run": RUN})
        assert await person.try_all(bot, are_reading=True) > 100


@pytest.mark.slow
async def test_changing_commands__answer_or_refuse_extreme_options(tmp_path: Path) -> None:
    async with training_place(tmp_path) as here:
        add_corpus(tmp_path, some_text(), CORPUS)
        here.story(here.ana, STARTED).start()
        guild = here.discord.add_guild("lab", [here.ana, here.bob])
        options: dict[str, OptionValue] = {"run": STARTED, "corpus": CORPUS, "notify": "off", "member": here.bob}
        person = Person(here.discord, here.ana, guild, options)
        assert await person.try_all(here.bot, are_reading=False) > 100
