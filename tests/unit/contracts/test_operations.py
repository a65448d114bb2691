"""The table of operations has what the tables of the faces say."""

from bot.commands.run_options import _GENERATING, _STATES, _WITH_CHECKPOINT, _WITH_DEFAULT, _WITH_GROUP, NOUNS
from trainer.commands.catalogue import COMMANDS as COMMANDS_OF_MT
from trainer.contracts.operations import CHAT_COMMANDS, COMMANDS, OPERATIONS, SECTIONS
from trainer.http.table import OPERATIONS as OPERATIONS_OF_HTTP
from trainer.people.permissions import RULES, is_limited


def test_terminal_commands__are_those_of_the_catalogue() -> None:
    assert [*COMMANDS] == [*COMMANDS_OF_MT]
    for name, info in COMMANDS_OF_MT.items():
        found = COMMANDS[name]
        assert (found.module, found.about, found.example) == (info.module, info.about, info.example)
        assert name in SECTIONS[info.section].split(", ")


def test_chat_commands__have_the_rules_of_the_bot() -> None:
    assert [*CHAT_COMMANDS] == [*RULES]
    for name, rule in RULES.items():
        found = CHAT_COMMANDS[name]
        assert (found.role.value, found.is_ephemeral) == (rule.role.value, rule.is_ephemeral)
        assert (found.limit == "requests") == (is_limited(name) or name == "export")  # which HTTP limits already


def test_chat_commands__take_the_runs_that_the_bot_suggests() -> None:
    for name in (name for name in RULES if ":" not in name):
        found = CHAT_COMMANDS[name]
        assert (found.states or None) == _STATES.get(name)
        assert found.generates == (name in _GENERATING)
        assert found.chat is not None
        assert found.chat.noun == NOUNS.get(name)
        flags = found.takes_default, found.takes_model, found.takes_group
        assert flags == (name in _WITH_DEFAULT, name in _WITH_CHECKPOINT, name in _WITH_GROUP)


def test_routes__are_those_of_the_api() -> None:
    rows = [one for one in OPERATIONS if one.route]
    assert [one.route for one in rows] == [f"{one.method} {one.path}" for one in OPERATIONS_OF_HTTP]
    for row, known in zip(rows, OPERATIONS_OF_HTTP, strict=True):
        assert (row.name, row.tag, row.is_open) == (known.name, known.tag, known.access == "open")
        assert (row.example, {**row.query_example}) == (known.example, {**known.query_example})
        assert row.body_type == known.body_type
        if row.summary:
            assert row.summary == known.summary
        if row.answer:
            assert row.answer in {answer.description for answer in known.answers.values()}
