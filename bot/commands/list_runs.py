"""`/mt runs`: the runs by pages; which page of which runs stands in the buttons, so they outlive every process."""

from base64 import b32decode, b32encode
from collections.abc import Sequence
from typing import NamedTuple, get_args

import discord
from discord import app_commands

from bot.buttons import Pressed, button, choice_of_run, row
from bot.client import Bot
from bot.commands.responses import Answer, Call, respond
from bot.commands.run_options import run_names
from bot.embeds import STATE_SIGNS, clamp, plain, runs_page
from bot.run_index import RunEntry, matching
from trainer.contracts.base import RunState
from trainer.contracts.errors import AppError, ErrorCode

PAGE_RUNS = 8
_STATES: tuple[RunState, ...] = get_args(RunState)
_QUERY_BYTES = 38  # as base32, with the letter before it, as long as an id in a button may be
_OPTION_CHARACTERS = 100  # Discord's limit


class Wanted(NamedTuple):
    """Which runs, and which page of them."""

    state: RunState | None
    is_mine: bool
    query: str
    page: int = 0

    def button(self, page: int, label: str, *, disabled: bool = False) -> discord.ui.Button[discord.ui.View]:
        """The button that shows another page of the same runs."""
        query = b32encode(self.query.encode()).decode().rstrip("=").lower()
        state = 0 if self.state is None else 1 + _STATES.index(self.state)
        detail = f"{page}-{state}-{int(self.is_mine)}"
        return button("runs", f"q{query}", label, detail=detail, disabled=disabled)

    @classmethod
    def of(cls, pressed: Pressed) -> "Wanted":
        """Read a button; raises INVALID_INPUT for one that this version does not make."""
        query = pressed.run_id[1:].upper()
        try:
            page, state, mine = map(int, (pressed.detail or "").split("-"))
            return cls(
                state=None if state == 0 else _STATES[state - 1],
                is_mine=mine == 1,
                query=b32decode(query + "=" * (-len(query) % 8)).decode(),
                page=page,
            )
        except (ValueError, IndexError):
            raise AppError(
                ErrorCode.INVALID_INPUT, "This button is of another version: give `/mt runs` again."
            ) from None


@app_commands.command(description="The newest runs, page by page.")
@app_commands.describe(
    state="Only those that stand like this",
    mine="Only your own; True without it",
    query="Only those with these words in name, id or corpus",
)
async def runs(
    interaction: discord.Interaction[Bot],
    state: RunState | None = None,
    mine: bool = True,
    query: app_commands.Range[str, 1, 100] = "",
) -> None:
    wanted = Wanted(state, mine, query.encode()[:_QUERY_BYTES].decode(errors="ignore"))
    await respond(interaction, "runs", lambda call: _runs(call, wanted))


async def runs_clicked(interaction: discord.Interaction[Bot], pressed: Pressed) -> None:
    """Another page, in the same message."""

    async def turned(call: Call) -> Answer:
        return await _runs(call, Wanted.of(pressed))

    await respond(interaction, "runs", turned, in_place=True)


async def _runs(call: Call, wanted: Wanted) -> Answer:
    await call.bot.index.refresh()
    found = _found(call, wanted)
    pages = max(1, -(-len(found) // PAGE_RUNS))
    page = min(wanted.page, pages - 1)
    shown = found[page * PAGE_RUNS : (page + 1) * PAGE_RUNS]
    embed = runs_page(
        shown, wanted=_title(wanted), count=len(found), page=page + 1, pages=pages, request_id=call.request_id
    )
    return Answer(embed, view=_buttons(wanted, shown, page, pages))


def _found(call: Call, wanted: Wanted) -> Sequence[RunEntry]:
    """Newest first, whatever fits best: so a page stays what it was."""
    runs = [
        run
        for run in call.bot.index.runs
        if call.bot.permissions.may_see(call.caller, run)
        and (not wanted.is_mine or run.user_id == call.caller.user_id)
        and wanted.state in (None, run.state)
    ]
    fitting = set(matching(wanted.query, runs, run_names, exactly=True))
    return [run for run in runs if run in fitting]


def _buttons(wanted: Wanted, shown: Sequence[RunEntry], page: int, pages: int) -> discord.ui.View:
    options = [
        discord.SelectOption(
            label=clamp(f"{STATE_SIGNS[run.state]} {run.name}", _OPTION_CHARACTERS),
            value=run.run_id,
            description=clamp(f"{run.state} · {run.run_id}", _OPTION_CHARACTERS),
        )
        for run in shown
    ]
    items: list[discord.ui.Item[discord.ui.View]] = []
    if options:
        items.append(choice_of_run("status", "How does one of them stand?", options))
    if pages > 1:
        items += [
            wanted.button(page - 1 if page else pages + 1, "« Back", disabled=page == 0),  # no two ids may be equal
            wanted.button(page, f"{page + 1}/{pages}"),
            wanted.button(page + 1, "Next »", disabled=page == pages - 1),
        ]
    return row(*items)


def _title(wanted: Wanted) -> str:
    whose = "Your" if wanted.is_mine else "All"
    state = f" {wanted.state}" if wanted.state else ""
    query = f" with «{plain(wanted.query)}»" if wanted.query else ""
    return f"{whose}{state} runs{query}"
