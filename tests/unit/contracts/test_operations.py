"""The table of operations."""

import re
from collections import Counter
from collections.abc import Iterable

from trainer.contracts.operations import BY_NAME, CHAT_COMMANDS, COMMANDS, OPERATIONS, SECTIONS


def repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def test_names__are_each_of_one_operation() -> None:
    assert repeated(one.name for one in OPERATIONS) == []
    assert [one.name for one in OPERATIONS if not re.fullmatch("[a-z]+(_[a-z]+)*", one.name)] == []
    assert repeated(one.route for one in OPERATIONS if one.route) == []
    assert repeated(name for names in SECTIONS.values() for name in names) == []


def test_commands__all_have_a_place_in_the_help() -> None:
    assert {one.terminal.command for one in OPERATIONS if one.terminal} == COMMANDS.keys()
    assert {one.chat.command for one in OPERATIONS if one.chat} == CHAT_COMMANDS.keys()


def test_jobs__are_followed_by_an_operation_that_reads_them() -> None:
    followed = [BY_NAME[one.follows] for one in OPERATIONS if one.follows]
    assert {one.method for one in followed} == {"GET"}
