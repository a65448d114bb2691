"""Permissions: every button, menu and form, tried by every role, against the table of the reference."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from bot.app import BUTTONS, FORMS
from bot.commands.help import all_commands, command_name
from bot.session.client import Bot
from local_discord import LocalDiscord, Upload
from local_discord.limits import MESSAGE_MENU, TEXT_INPUT
from local_discord.state import Call, User
from local_discord.wire import mapping, rows, text
from scripts.commands_page import LABELS, commands_page
from tests.support import ROOT
from tests.support.batteries import battery_record
from tests.support.bot import FORM, discord_alone, is_allowed, running_bot, settings, with_buttons
from tests.support.markers import slow_except
from tests.support.readings import reading_record
from tests.support.stories import Story, run_record
from tests.support.studies import study_record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.studies import StudyStore
from trainer.contracts.base import changed, now
from trainer.contracts.operations import BY_NAME
from trainer.lab.permissions import bare_command

RUN = "lstm-1"
"""The id of a run, and of a battery."""
PAGE = ROOT / "docs" / "commands.md"
MAX_BUTTONS = 20  # of a message that has a list, too, by Discord
DETAILS = dict.fromkeys(("runs", "runspage"), "0-0-0-0") | dict.fromkeys(
    ("again", "edit", "hotter", "cooler", "scorethis", "detail", "csv", "chat", "evaluated"), "nothing"
)
DETAILS |= dict.fromkeys(("jobwatch", "jobtable", "jobfiles"), "battery")


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of the page, its head first."""
    lines = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [rows[0], *rows[2:]]


def rights() -> dict[str, dict[str, bool]]:
    """Command, person: whether the page says that this person may."""
    head, *commands = table("Permissions")
    return {
        bare_command(command.strip("`")): {who: may == "yes" for who, may in zip(head[1:], people, strict=True)}
        for command, *people in commands
    }


def test_page__of_the_repository_is_written_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == commands_page(), "python -m scripts.commands_page > docs/commands.md"


def test_permissions__are_those_that_a_person_has_reviewed(snapshot: SnapshotAssertion) -> None:
    assert "\n".join(" | ".join(row) for row in table("Permissions")) == snapshot


def test_page__names_every_button_with_the_command_of_its_rights() -> None:
    shown = {(label, bare_command(command.strip("`"))) for label, command in table("Buttons")[1:]}
    rules = {action: reaction.command for action, reaction in BUTTONS.items()}
    without = {action: f"for {BY_NAME[command].role}" for action, command in rules.items() if command not in rights()}
    assert shown == {(LABELS[action], command) for action, command in (rules | without).items()}
    assert set(LABELS) == set(BUTTONS)


@pytest.mark.parametrize("private", slow_except([False, True], True))
async def test_everybody__has_the_rights_of_the_page_and_no_others(tmp_path: Path, private: bool) -> None:
    """Commands themselves are tried by test_rights.py."""
    async with discord_alone() as server:
        ana, bob, cid, eve = (server.add_user(name) for name in ("ana", "bob", "cid", "eve"))
        users = "users, private runs" if private else "users"
        people = {"strangers": eve, users: cid, "the run's owner": bob, "admins": ana}
        guild = server.add_guild("lab", [ana])
        chosen = settings(tmp_path, server, owner_id=ana.id, allowed_user_ids=(bob.id, cid.id), private_runs=private)
        story = Story(tmp_path / "artifacts", changed(run_record(RUN, user_id=bob.id), created_at=now()))
        scored, items = battery_record(RUN)
        BatteryStore(tmp_path / "artifacts").create(changed(scored, user_id=bob.id), items)
        explained, times = reading_record(RUN)
        ReadingStore(tmp_path / "artifacts").create(changed(explained, user_id=bob.id), times)
        StudyStore(tmp_path / "artifacts").create(changed(study_record(RUN), user_id=bob.id))
        async with running_bot(chosen, server) as bot:
            told = rights()
            for command, may in told.items():
                if private and command.startswith("mt-experiment "):  # which show many runs
                    may["the run's owner"] = may[users]
            assert {name for name in told if ":" not in name} == set(map(command_name, all_commands(bot)))
            await try_menus(server, people, told)
            await try_form(server, await server.slash(ana, "mt settings"), people, told)
            deletion = await server.slash(ana, "mt-admin delete", {"run": RUN}, guild=guild)
            await try_form(server, deletion, people, told)
            await try_buttons(server, bot, people, told, story)


async def try_buttons(
    server: LocalDiscord,
    bot: Bot,
    people: Mapping[str, User],
    told: Mapping[str, Mapping[str, bool]],
    story: Story,
) -> None:
    """Press every button as everybody, at last that which ends the run; whose message it is makes no difference."""
    actions = [*sorted(set(BUTTONS) - {"cancel"}), "cancel"]
    custom_ids = {action: f"mt:{action}:{'q' if action in ('runs', 'runspage') else RUN}" for action in actions}
    for action, detail in DETAILS.items():
        custom_ids[action] += f":{detail}"
    lists = {custom_ids["compareto"]: RUN}  # it needs the run that is selected
    channel = server.dm_channel(people["admins"])
    left = [one for one in custom_ids.items() if BUTTONS[one[0]].command in told]  # test_rights has the others
    while left:
        here, left = left[:MAX_BUTTONS], left[MAX_BUTTONS:]
        message = await with_buttons(server, bot, channel, *(custom_id for _, custom_id in here), lists=lists)
        first = message.payload
        for action, custom_id in here:
            asks_page = action in FORMS and action.endswith("page")  # its form shows nothing, and is tried below
            for who, user in people.items():
                server.edit_message(message, {"components": first["components"]}, {})
                call = await server.click(user, message, custom_id, [RUN])
                may = told[BUTTONS[action].command][who] or (asks_page and who != "strangers")
                assert await is_allowed(call) == may, (action, who)
                await try_form(server, call, people, told)
                assert story.run.cancel_requested() == (action == "cancel" and told["cancel"][who])


async def try_menus(server: LocalDiscord, people: Mapping[str, User], told: Mapping[str, Mapping[str, bool]]) -> None:
    """Choose every command of a message's menu as everybody: each is about the person's own newest run, or a file."""
    names = [text(one["name"]) for one in server.commands if one["type"] == MESSAGE_MENU]
    assert len(names) == 2
    for name in names:
        for who, user in people.items():
            message = server.say(user, server.dm_channel(user), "a b c", Upload("lines.txt", b""))
            call = await server.choose(user, message, name)
            assert await is_allowed(call) == told["train"][who], (name, who)
            await try_form(server, call, people, told)


async def try_form(
    server: LocalDiscord, opened: Call, people: Mapping[str, User], told: Mapping[str, Mapping[str, bool]]
) -> None:
    """Submit the form that an admin has opened, if there is one, as everybody: a form proves no permission."""
    if opened.callback_type != FORM or opened.user != people["admins"]:
        return
    form = await opened.form()
    command = FORMS[text(form["custom_id"]).split(":")[1]].command
    fields = [mapping(part["component"]) for part in rows(form["components"])]
    values = {text(one["custom_id"]): "1" for one in fields if one["type"] == TEXT_INPUT and not one.get("value")}
    for who, user in people.items():
        call = await server.submit_modal(replace(opened, user=user), values)
        assert await is_allowed(call) == told[command][who], (form["custom_id"], who)
