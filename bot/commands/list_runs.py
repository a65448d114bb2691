"""`/mt runs`: runs page by page; the filters and the page are in the buttons' ids, so that they survive a restart."""

from base64 import b32decode, b32encode
from collections.abc import Sequence
from typing import NamedTuple, get_args

import discord
from discord import app_commands

from bot.buttons import ButtonPress, Field, button, button_row, form, run_select
from bot.client import Bot
from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, respond
from bot.commands.run_options import run_names
from bot.embeds.answers import STATE_SIGNS, runs_page
from bot.embeds.text import clamp, plain
from bot.language import _
from bot.run_index import RunEntry, matching
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.models import ModelFamily

PAGE_RUNS = 8
_STATES: tuple[RunState, ...] = get_args(RunState)
_FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)
_MAX_PAGE_DIGITS = 4
_MAX_QUERY_BYTES = 38  # in base32, with one letter before it, as long as an id in a button may be
_MAX_OPTION_CHARACTERS = 100  # Discord's limit


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

    def _detail(self, page: int) -> str:
        state = 0 if self.state is None else 1 + _STATES.index(self.state)
        family = 0 if self.family is None else 1 + _FAMILIES.index(self.family)
        return f"{page}-{state}-{int(self.is_mine)}-{family}"

    def button(self, page: int, label: str, *, disabled: bool = False) -> discord.ui.Button[discord.ui.View]:
        """Return the button for another page of the list."""
        return button("runs", self._query_id, label, detail=self._detail(page), disabled=disabled)

    def page_button(self, label: str) -> discord.ui.Button[discord.ui.View]:
        """Return the button of the form for a page number."""
        return button("page", self._query_id, label, detail=self._detail(self.page))

    def page_form(self) -> discord.ui.Modal:
        number = Field("page", _("Number of the page"), max_characters=_MAX_PAGE_DIGITS)
        return form("page", self._query_id, _("Go to a page"), number, detail=self._detail(self.page))

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
    bot, caller = context.bot, context.caller
    await bot.index.refresh()
    runs = [
        run
        for run in bot.index.runs
        if bot.permissions.may_see(caller, run)
        and (not filters.is_mine or run.user_id == caller.user_id)
        and filters.state in (None, run.state)
        and filters.family in (None, run.family)
    ]
    fitting = set(matching(filters.query, runs, run_names, exactly=True))
    runs = [run for run in runs if run in fitting]  # newest first, not best match first
    pages = max(1, -(-len(runs) // PAGE_RUNS))
    page = min(filters.page, pages - 1)
    shown = runs[page * PAGE_RUNS : (page + 1) * PAGE_RUNS]
    embed = runs_page(shown, title=filters.title, total=len(runs), page=page + 1, pages=pages)
    return Answer(embed, view=_buttons(filters, shown, page, pages))


def _buttons(filters: RunFilters, shown: Sequence[RunEntry], page: int, pages: int) -> discord.ui.View:
    options = [
        discord.SelectOption(
            label=clamp(f"{STATE_SIGNS[run.state]} {run.name}", _MAX_OPTION_CHARACTERS),
            value=run.run_id,
            description=clamp(f"{_(run.state)} · {run.run_id}", _MAX_OPTION_CHARACTERS),
        )
        for run in shown
    ]
    items: list[discord.ui.Item[discord.ui.View]] = []
    if options:
        items.append(run_select("status", _("Show the status of a run"), options))
    if pages > 1:
        items += [
            filters.button(page - 1 if page else pages + 1, _("« Back"), disabled=page == 0),  # ids must be different
            filters._replace(page=page).page_button(f"{page + 1}/{pages}"),
            filters.button(page + 1, _("Next »"), disabled=page == pages - 1),
        ]
    return button_row(*items)


async def _turn(context: CommandContext, press: ButtonPress) -> Answer:
    return await _runs(context, RunFilters.parse(press))


async def _page_form(context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
    return RunFilters.parse(press).page_form()


async def _turn_to(context: CommandContext, press: ButtonPress) -> Answer:
    """Show the page whose number is in a form; one beyond the end is the last page."""
    typed = press.fields["page"].strip()
    if not (typed.isascii() and typed.isdigit() and int(typed)):
        raise AppError(ErrorCode.INVALID_INPUT, _("`page` must be a number from 1 on, for example 2."))
    return await _runs(context, RunFilters.parse(press)._replace(page=int(typed) - 1))


LIST_BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {
    "runs": ButtonAnswer("runs", _turn, lambda press: True),
    "page": ButtonForm("runs", _page_form),
}
LIST_FORMS = {"page": ButtonAnswer("runs", _turn_to, lambda press: True)}
