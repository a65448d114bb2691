"""`/mt runs`: runs page by page; the filters and the page are in the buttons' ids, so that they survive a restart."""

from base64 import b32decode, b32encode
from typing import NamedTuple

import discord
from discord import app_commands

from bot.commands.pages import PagedList
from bot.commands.responses import Answer, CommandContext, respond
from bot.messages.answers import STATE_SIGNS, runs_page
from bot.messages.buttons import ButtonPress, option, run_select
from bot.messages.text import plain
from bot.session.client import Bot
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import PRESETS, ModelFamily
from trainer.contracts.parameters import RunsQuery
from trainer.lab.language import _
from trainer.queue.run_index import rows_of
from trainer.queue.run_list import found_runs

PAGE_RUNS = 8
_STATES: tuple[RunState | None, ...] = (None, *STATE_SIGNS)
_FAMILIES: tuple[ModelFamily | None, ...] = (None, "char_lstm", *PRESETS)
_MAX_QUERY_BYTES = 38  # in base32, with one letter before it, as long as an id in a button may be


class RunFilters(NamedTuple):
    """The filters and the page of a list."""

    state: RunState | None
    is_mine: bool
    query: str
    page: int = 0
    family: ModelFamily | None = None

    @property
    def query_id(self) -> str:
        return f"q{b32encode(self.query.encode()).decode().rstrip('=').lower()}"

    @property
    def code(self) -> str:
        """Return the other filters as the end of a button's detail."""
        return f"-{_STATES.index(self.state)}-{int(self.is_mine)}-{_FAMILIES.index(self.family)}"

    @classmethod
    def parse(cls, press: ButtonPress) -> "RunFilters":
        """Read a button; raises INVALID_INPUT for a button of another version."""
        query = press.run_id[1:].upper()
        try:
            page, state, mine, family = map(int, (press.detail or "").split("-"))
            return cls(
                state=_STATES[state],
                is_mine=mine == 1,
                query=b32decode(query + "=" * (-len(query) % 8)).decode(),
                page=page,
                family=_FAMILIES[family],
            )
        except (ValueError, IndexError):
            message = _("This button is of another version of the bot. Run `/mt runs` again.")
            raise AppError(ErrorCode.INVALID_INPUT, message) from None

    @property
    def title(self) -> str:
        kind = "".join(f" {word}" for word in (self.state and _(self.state), self.family) if word)
        query = _(" with «{words}»", words=plain(self.query)) if self.query else ""
        return (_("Your{kind} runs", kind=kind) if self.is_mine else _("All{kind} runs", kind=kind)) + query


@app_commands.command(description="List the newest runs, page by page.")
@app_commands.describe(
    state="Filter by state",
    model="Filter by model family",
    mine="Only your own runs; default: True",
    query="Filter by words in name, id or corpus",
)
async def runs(
    interaction: discord.Interaction[Bot],
    state: RunState | None = None,
    model: ModelFamily | None = None,
    mine: bool = True,
    query: app_commands.Range[str, 1, 100] = "",
) -> None:
    words = query.encode()[:_MAX_QUERY_BYTES].decode(errors="ignore")
    filters = RunFilters(state, mine, words, family=model)
    await respond(interaction, "runs", lambda context: _runs(context, filters))


async def _runs(context: CommandContext, filters: RunFilters) -> Answer:
    await context.lab.index.refresh()
    owner = str(context.caller.user_id) if filters.is_mine else None
    query = RunsQuery(status=filters.state, family=filters.family, owner=owner, search=filters.query)
    rows = rows_of(found_runs(context.lab.seen_runs(context.caller), query))
    page = RUNS.page_of(rows, filters.page, filters.query_id, filters.code, size=PAGE_RUNS)
    options = [
        option(row.name, f"{STATE_SIGNS[run.state]} {run.name}", f"{_(run.state)} · {row.name}")
        for row in page.items
        for run in row.runs[:1]
    ]
    if options:
        page.buttons.add_item(run_select("status", _("Show the status of a run"), options))
    is_first = filters.page == 0 and query == RunsQuery(owner=owner)
    hidden = context.lab.unreadable_runs(context.caller) if is_first else ()
    total = len(rows) + len(hidden)
    embed = runs_page(page.items, title=filters.title, total=total, page=page.title, unreadable=hidden)
    return Answer(embed, view=page.buttons)


RUNS = PagedList("runs", "runs", lambda context, press: _runs(context, RunFilters.parse(press)))
BUTTONS, FORMS = RUNS.button_reactions, RUNS.form_reactions
