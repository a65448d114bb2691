"""`/mt runs`: runs page by page; the filters and the page are in the buttons' ids, so that they survive a restart."""

from base64 import b32decode, b32encode
from collections.abc import Sequence
from typing import NamedTuple, get_args

import discord
from discord import app_commands

from bot.commands.pages import PagedList
from bot.commands.responses import Answer, CommandContext, respond
from bot.messages.answers import STATE_SIGNS, runs_page
from bot.messages.buttons import ButtonPress, button_row, option, run_select
from bot.messages.text import plain
from bot.session.client import Bot
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelFamily
from trainer.contracts.parameters import RunsQuery
from trainer.lab.language import _
from trainer.queue.run_index import RunRow, rows_of
from trainer.queue.run_list import found_runs

PAGE_RUNS = 8
_STATES: tuple[RunState, ...] = get_args(RunState)
_FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)
_MAX_QUERY_BYTES = 38  # in base32, with one letter before it, as long as an id in a button may be


class RunFilters(NamedTuple):
    """The filters and the page of a list."""

    state: RunState | None
    is_mine: bool
    query: str
    page: int = 0
    family: ModelFamily | None = None

    @property
    def _query_id(self) -> str:
        return f"q{b32encode(self.query.encode()).decode().rstrip('=').lower()}"

    @property
    def _filters(self) -> str:
        state = 0 if self.state is None else 1 + _STATES.index(self.state)
        family = 0 if self.family is None else 1 + _FAMILIES.index(self.family)
        return f"-{state}-{int(self.is_mine)}-{family}"

    def buttons(self, pages: int) -> list[discord.ui.Button[discord.ui.View]]:
        """Return the buttons to the other pages of the list."""
        return _LIST.buttons(self.page, pages, self._query_id, self._filters)

    @classmethod
    def parse(cls, press: ButtonPress) -> "RunFilters":
        """Read a button; raises INVALID_INPUT for a button of another version."""
        query = press.run_id[1:].upper()
        try:
            page, state, mine, family = map(int, (press.detail or "").split("-"))
            return cls(
                state=None if state == 0 else _STATES[state - 1],
                is_mine=mine == 1,
                query=b32decode(query + "=" * (-len(query) % 8)).decode(),
                page=page,
                family=None if family == 0 else _FAMILIES[family - 1],
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
    pages = max(1, -(-len(rows) // PAGE_RUNS))
    page = min(filters.page, pages - 1)
    shown = rows[page * PAGE_RUNS : (page + 1) * PAGE_RUNS]
    embed = runs_page(shown, title=filters.title, total=len(rows), page=page + 1, pages=pages)
    return Answer(embed, view=_buttons(filters._replace(page=page), shown, pages))


def _buttons(filters: RunFilters, shown: Sequence[RunRow], pages: int) -> discord.ui.View:
    options = [
        option(row.name, f"{STATE_SIGNS[run.state]} {run.name}", f"{_(run.state)} · {row.name}")
        for row in shown
        for run in row.runs[:1]
    ]
    items: list[discord.ui.Item[discord.ui.View]] = []
    if options:
        items.append(run_select("status", _("Show the status of a run"), options))
    items += filters.buttons(pages)
    return button_row(*items)


async def _turn(context: CommandContext, press: ButtonPress) -> Answer:
    return await _runs(context, RunFilters.parse(press))


_LIST = PagedList("runs", "runs", _turn)
BUTTONS, FORMS = _LIST.button_reactions, _LIST.form_reactions
