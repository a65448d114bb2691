"""The local Discord behaves to a real discord.py client as Discord does, and records what Discord would not take."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import discord
import pytest
import yarl
from aiohttp import ClientSession
from discord import app_commands
from pydantic import JsonValue

from local_discord import ClientRefusal, Drop, Limit, LocalDiscord, OptionValue, limits
from local_discord.state import User
from local_discord.wire import Json, decode, encode, mapping
from tests.support.bot import place
from tests.support.waiting import until

TOKEN = "test-token"  # noqa: S105
# discord.py's exceptions take untyped arguments, so they are named once with their plain type.
HTTP_ERROR: type[Exception] = discord.HTTPException
NOT_FOUND: type[Exception] = discord.NotFound


class NewGroup(Protocol):
    def __call__(self, *, name: str, description: str) -> app_commands.Group: ...


class Bot(discord.Client):
    """A small bot whose commands answer, late or never."""

    def __init__(self) -> None:
        intents = discord.Intents.none()
        intents.guilds = True
        super().__init__(intents=intents, allowed_mentions=discord.AllowedMentions.none())
        installs = app_commands.AppInstallationType(guild=True, user=True)
        self.tree = app_commands.CommandTree(self, allowed_installs=installs)
        self.resumes = 0
        self.is_late = asyncio.Event()

    async def setup_hook(self) -> None:
        new_group: NewGroup = app_commands.Group
        mt = new_group(name="mt", description="Model Trainer")

        @mt.command(name="status", description="Show a run")
        async def status(interaction: discord.Interaction, run: str) -> None:
            await interaction.response.send_message(f"status of {run}")

        @mt.command(name="slow", description="Answers too late")
        async def slow(interaction: discord.Interaction) -> None:
            await self.is_late.wait()
            with pytest.raises(NOT_FOUND, match="10062"):
                await interaction.response.send_message("too late")

        @mt.command(name="stuck", description="Defers and forgets")
        async def stuck(interaction: discord.Interaction) -> None:
            await interaction.response.defer()

        @self.tree.command(name="mt-admin", description="Only in guilds")
        @app_commands.guild_only()
        async def admin(interaction: discord.Interaction) -> None:
            await interaction.response.send_message(interaction.user.name)

        self.tree.add_command(mt)
        await self.tree.sync()

    async def on_resumed(self) -> None:
        self.resumes += 1


@asynccontextmanager
async def running_bot(server: LocalDiscord) -> AsyncIterator[Bot]:
    """The bot, logged in and connected to `server`; discord.py's addresses are put back afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("discord.http.Route.BASE", server.api_base_url)
        patch.setattr("discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY", yarl.URL(server.gateway_url))
        async with Bot() as bot:
            await bot.login(TOKEN)
            connection = asyncio.create_task(bot.connect())
            await server.connected()
            yield bot
            await bot.close()
            await connection


@pytest.fixture(name="server")
async def server_fixture() -> AsyncIterator[LocalDiscord]:
    async with LocalDiscord(token=TOKEN) as server:
        yield server


@pytest.fixture(name="bot")
async def bot_fixture(server: LocalDiscord) -> AsyncIterator[Bot]:
    async with running_bot(server) as bot:
        yield bot


@pytest.fixture(name="user")
def user_fixture(server: LocalDiscord) -> User:
    return server.add_user("ayse")


async def send_raw(server: LocalDiscord, method: str, path: str, body: JsonValue) -> tuple[int, Json]:
    """A request as no library would send it: the status and the JSON answer."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bot {TOKEN}"}
    url = f"{server.api_base_url}{path}"
    async with ClientSession() as session, session.request(method, url, data=encode(body), headers=headers) as answer:
        return answer.status, mapping(decode(await answer.read()))


MISTAKES: Sequence[tuple[str, dict[str, OptionValue], str]] = [
    ("mt train", {"epochs": 1001}, "at most 1000"),
    ("mt compare", {"a": "x"}, "b is required"),
    ("mt train", {"epochs": "7"}, "does not take str"),
    ("mt train", {"length": 7}, "Unknown options"),
    ("mt", {}, "is a group"),
]


async def test_client__refuses_input_that_no_person_can_send(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        for command, options, refusal in MISTAKES:
            with pytest.raises(ClientRefusal, match=refusal):
                await here.discord.slash(here.bob, command, options)
        here.story(here.bob)
        message = await here.reply(here.bob, "status")
        with pytest.raises(ClientRefusal, match="no component"):
            await here.discord.click(here.bob, message, "mt:cancel:run_1")
        opened = await here.discord.click(here.bob, message, "mt:change:char_lstm-1")
        with pytest.raises(ClientRefusal, match="4001 characters"):
            await here.discord.submit_modal(opened, {"config": "x" * 4001})
        form = await here.discord.slash(here.bob, "mt settings")
        for name, value, refusal in (("where", "there", "Unknown fields"), ("unit", "hartleys", "is not a selection")):
            with pytest.raises(ClientRefusal, match=refusal):
                await here.discord.submit_modal(form, {name: value})


async def test_gateway__interaction_during_a_drop_is_replayed_on_resume(
    server: LocalDiscord, bot: Bot, user: User
) -> None:
    ways: list[Drop | int] = ["abort", "reconnect", 4000]
    for seen, how in enumerate(ways, start=1):
        server.drop_gateway(how)
        call = await server.slash(user, "mt status", {"run": f"run-{seen}"})
        assert f"status of run-{seen}" == (await call.reply()).content
        assert seen == bot.resumes
    assert [] == server.violations


async def test_gateway__plain_json_refuses_wrong_token_and_unknown_session() -> None:
    async with LocalDiscord(token=TOKEN) as server, ClientSession() as session:
        properties: Json = {"os": "linux", "browser": "test", "device": "test"}
        identify: Json = {"op": 2, "d": {"token": "wrong", "intents": 1, "properties": properties}}
        async with session.ws_connect(f"{server.gateway_url}?v=10&encoding=json") as socket:
            hello = mapping(decode(await socket.receive_str()))
            await socket.send_str(encode(identify).decode())
            with pytest.raises(TypeError):
                await socket.receive_str()
            assert (10, 4004) == (hello["op"], socket.close_code)
        resume: Json = {"op": 6, "d": {"token": TOKEN, "session_id": "unknown", "seq": 1}}
        async with session.ws_connect(server.gateway_url) as socket:
            await socket.receive_str()
            await socket.send_str(encode(resume).decode())
            assert {"op": 9, "d": False, "s": None, "t": None} == decode(await socket.receive_str())


async def test_embed_limits__too_long_is_refused_with_nested_errors_and_recorded() -> None:
    async with LocalDiscord(token=TOKEN, message_limit=Limit(50, 1.0)) as server, running_bot(server) as bot:
        person = await bot.fetch_user(server.add_user("ayse").id)
        await person.send(embed=discord.Embed(title="t" * 256, description="d" * 4096))
        assert [] == server.violations
        for embed, message in (
            (discord.Embed(title="t" * 257), r"In embeds\.0\.title: Must be 256 or fewer in length"),
            (discord.Embed(description="d" * 4097), r"In embeds\.0\.description: Must be 4096"),
            (discord.Embed(title="t").set_footer(text="f" * 2049), r"In embeds\.0\.footer\.text: Must be 2048"),
            (discord.Embed().add_field(name="n", value="v" * 1025), r"In embeds\.0\.fields\.0\.value: Must be 1024"),
        ):
            with pytest.raises(HTTP_ERROR, match=message):
                await person.send(embed=embed)
        with pytest.raises(HTTP_ERROR, match="6000"):
            await person.send(embeds=[discord.Embed(description="d" * 3001)] * 2)
        with pytest.raises(HTTP_ERROR, match="2000 or fewer"):
            await person.send("c" * 2001)
        with pytest.raises(HTTP_ERROR, match="40005"):
            await person.send(file=discord.File(io.BytesIO(bytes(10 * 1024 * 1024 + 1)), "big.bin"))
        assert ["request"] * 7 == [violation.kind for violation in server.violations]
        assert "POST /channels/{channel_id}/messages" == server.violations[0].where


async def test_rate_limit__discord_py_waits_and_nothing_is_lost() -> None:
    async with LocalDiscord(token=TOKEN, message_limit=Limit(2, 0.3)) as server, running_bot(server) as bot:
        user = server.add_user("ayse")
        sent = await (await bot.fetch_user(user.id)).send("0")
        await asyncio.gather(*(sent.edit(content=str(index)) for index in range(1, 6)))
        server.fail_next("PATCH", "/channels/{channel_id}/messages/{message_id}", 429, retry_after_seconds=0.05)
        await sent.edit(content="last")
        [stored] = server.messages(server.dm_channel(user))
        assert {"1", "2", "3", "4", "5"} == {str(version.payload["content"]) for version in stored.versions[1:-1]}
        assert "last" == stored.content
        # Six edits, two per window of 0.3 s, span at least two windows.
        assert stored.edit_seconds[-1] - stored.edit_seconds[0] >= 0.55
        assert 429 in [request.status for request in server.requests]
        assert [] == server.violations


async def test_rate_limit__ignoring_the_headers_gives_429_in_discords_form(server: LocalDiscord) -> None:
    path = f"/channels/{server.dm_channel(server.add_user('ayse')).id}/messages"
    answers = [await send_raw(server, "POST", path, {"content": str(index)}) for index in range(6)]
    status, error = answers[-1]
    assert [200] * 5 == [answer[0] for answer in answers[:5]]
    assert (429, False) == (status, error["global"])
    assert isinstance(error["retry_after"], float)
    assert 0 < error["retry_after"] <= 5
    assert [] == server.violations


_OPTIONS: list[JsonValue] = [
    {"type": 3, "name": f"o{number}", "description": "d", "description_localizations": {"ru": "р" * 100}}
    for number in range(25)
]
_GROUP: list[JsonValue] = [
    {"type": 1, "name": f"s{number}", "description": "d", "options": _OPTIONS} for number in range(4)
]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"name": "n", "description": "d", "options": _GROUP}, "BASE_TYPE_MAX_LENGTH"),
        ({"name": "n", "description": ""}, "BASE_TYPE_REQUIRED"),
        ({"name": "n", "description": "d" * 101}, "BASE_TYPE_MAX_LENGTH"),
        ({"name": "n", "description": "d", "options": [{"type": 3, "name": "o"}]}, "BASE_TYPE_REQUIRED"),
        ({"name": "A menu", "type": 3, "description": "x"}, "BASE_TYPE_MAX_LENGTH"),
    ],
)
async def test_command_limits__a_tree_that_discord_refuses_is_refused(
    server: LocalDiscord, command: Json, code: str
) -> None:
    status, error = await send_raw(server, "PUT", f"/applications/{server.application_id}/commands", [command])
    assert (400, 50035) == (status, error["code"])
    assert code in encode(error["errors"]).decode()
    assert ["request"] == [violation.kind for violation in server.violations]


async def test_component_limits__missing_or_equal_custom_ids_are_refused(server: LocalDiscord) -> None:
    path = f"/channels/{server.dm_channel(server.add_user('ayse')).id}/messages"
    button: Json = {"type": 2, "style": 1, "label": "Go", "custom_id": "go"}
    for buttons in ([button, button], [{**button, "custom_id": "x" * 101}], [{**button, "custom_id": None}]):
        body: Json = {"components": [{"type": 1, "components": [*buttons]}]}
        status, error = await send_raw(server, "POST", path, body)
        assert (400, 50035) == (status, error["code"])
    where = [violation.detail.split(":")[0] for violation in server.violations]
    ids = [f"components.0.components.{index}.custom_id" for index in (1, 0, 0)]
    assert ids == where


async def test_unknown_things__have_discords_codes(server: LocalDiscord, user: User) -> None:
    channel = server.dm_channel(user)
    guild = server.add_guild("elsewhere", [server.add_user("kim")], bot_present=False)
    for method, path, expected in (
        ("GET", "/channels/1/messages", (404, 10003)),
        ("GET", f"/channels/{channel.id}/messages/1", (404, 10008)),
        ("GET", "/users/1", (404, 10013)),
        ("POST", "/interactions/1/none/callback", (404, 10062)),
        ("POST", f"/webhooks/{server.application_id}/none", (404, 10015)),
        ("POST", f"/channels/{guild.channels[0].id}/messages", (403, 50001)),
    ):
        body: JsonValue = {"type": 5} if "callback" in path else {"content": "x"} if method == "POST" else None
        status, error = await send_raw(server, method, path, body)
        assert expected == (status, error["code"])
    assert [] == server.violations
    assert 404 == (await send_raw(server, "GET", "/no/such/route", None))[0]
    assert ["request"] == [violation.kind for violation in server.violations]


async def test_guild__a_command_is_offered_only_in_its_contexts(server: LocalDiscord, bot: Bot) -> None:
    owner, member = server.add_user("ayse"), server.add_user("kim")
    guild = server.add_guild("lab", [owner, member])
    note = server.say(member, guild.channels[0], "read me")
    assert "read me" == note.content
    with pytest.raises(ClientRefusal, match="not offered in DMs"):
        await server.slash(owner, "mt-admin")
    admin = await (await server.slash(owner, "mt-admin", guild=guild)).reply()
    assert "ayse" == admin.content
    assert ["read me", "ayse"] == [shown.content for shown in server.messages(guild.channels[0])]
    assert [] == server.violations


async def test_deadline__late_answer_and_open_defer_are_violations() -> None:
    async with LocalDiscord(token=TOKEN, answer_seconds=1) as server:
        async with running_bot(server) as bot:
            user = server.add_user("ayse")
            late = await server.slash(user, "mt slow")
            await until(lambda: len(server.violations) > 0)
            assert "unanswered" == server.violations[0].kind
            assert late.expired
            with pytest.raises(TimeoutError, match="A reply to /mt slow"):
                await late.reply(timeout=0.1)
            bot.is_late.set()
            await until(lambda: 404 in [request.status for request in server.requests])
            stuck = await server.slash(user, "mt stuck")
            await stuck.answered()
            assert [stuck] == server.unresolved
            path = f"/interactions/{stuck.id}/{stuck.token}/callback"
            status, error = await send_raw(server, "POST", path, {"type": 5})
            assert (400, 40060) == (status, error["code"])
    assert ["unanswered", "interaction", "unresolved"] == [violation.kind for violation in server.violations]


async def test_token__expired_interaction_token_is_refused_with_50027(
    server: LocalDiscord, bot: Bot, user: User
) -> None:
    call = await server.slash(user, "mt status", {"run": "x"})
    await call.reply()
    call.created_seconds -= limits.TOKEN_SECONDS
    path = f"/webhooks/{server.application_id}/{call.token}/messages/@original"
    status, error = await send_raw(server, "PATCH", path, {"content": "y"})
    assert (401, 50027) == (status, error["code"])
