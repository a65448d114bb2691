"""Lists shown page by page; filters and page are in the buttons' ids, so that the buttons survive a restart."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import discord

from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext
from bot.messages.buttons import ButtonPress, Field, button, button_row, form
from trainer.contracts.errors import AppError, ErrorCode
from trainer.lab.language import _

T = TypeVar("T")

_PAGE_ITEMS = 10
_MAX_PAGE_DIGITS = 4
_LIST = "list"


class Page(NamedTuple, Generic[T]):
    """A page of a list, and the buttons to the pages around it."""

    items: Sequence[T]
    title: str
    """Number of the page, for the end of a title; empty if there is one page."""
    buttons: discord.ui.View


class PagedList(NamedTuple):
    """A list of pages: its buttons, and the form for the number of a page."""

    action: str
    command: str
    show: Callable[[CommandContext, ButtonPress], Awaitable[Answer]]
    """Shows the page of a button, whose detail begins with the number of the page, from 0."""

    @property
    def _form_action(self) -> str:
        return f"{self.action}page"

    def buttons(
        self, page: int, pages: int, list_id: str = _LIST, filters: str = ""
    ) -> list[discord.ui.Button[discord.ui.View]]:
        """Return the buttons of page `page`, from 0; none for a single page."""
        if pages == 1:
            return []
        back, following = page - 1 if page else pages + 1, page + 1  # ids must be different
        return [
            button(self.action, list_id, _("« Back"), detail=f"{back}{filters}", disabled=page == 0),
            button(self._form_action, list_id, f"{page + 1}/{pages}", detail=f"{page}{filters}"),
            button(self.action, list_id, _("Next »"), detail=f"{following}{filters}", disabled=following == pages),
        ]

    def page_of(
        self, items: Sequence[T], number: int, list_id: str = _LIST, filters: str = "", *, size: int = _PAGE_ITEMS
    ) -> Page[T]:
        """Return page `number`, from 0, or the last one, of pages of `size` items."""
        pages = max(1, -(-len(items) // size))
        page = min(number, pages - 1)
        shown = items[page * size : (page + 1) * size]
        title = f" · {_('page {page} of {pages}', page=page + 1, pages=pages)}" if pages > 1 else ""
        return Page(shown, title, button_row(*self.buttons(page, pages, list_id, filters)))

    @property
    def button_reactions(self) -> dict[str, ButtonAnswer | ButtonForm]:
        return {
            self.action: ButtonAnswer(self.command, self.show, lambda press: True),
            self._form_action: ButtonForm(self.command, self._page_form),
        }

    @property
    def form_reactions(self) -> dict[str, ButtonAnswer]:
        return {self._form_action: ButtonAnswer(self.command, self._turn_to, lambda press: True)}

    async def _page_form(self, context: CommandContext, press: ButtonPress) -> discord.ui.Modal:
        number = Field("page", _("Number of the page"), max_characters=_MAX_PAGE_DIGITS)
        return form(self._form_action, press.run_id, _("Go to a page"), number, detail=press.detail)

    async def _turn_to(self, context: CommandContext, sent: ButtonPress) -> Answer:
        """Show the page whose number is in a form; one beyond the end is the last page."""
        typed = sent.fields["page"].strip()
        if not (typed.isascii() and typed.isdigit() and int(typed)):
            raise AppError(ErrorCode.INVALID_INPUT, _("`page` must be a number from 1 on, for example 2."))
        _page, dash, filters = (sent.detail or "").partition("-")
        return await self.show(context, sent._replace(detail=f"{int(typed) - 1}{dash}{filters}"))


def unfiltered_list(
    action: str, command: str, show_page: Callable[[CommandContext, int], Awaitable[Answer]]
) -> PagedList:
    """Return a list whose buttons have only the number of a page, from 0, which `show_page` shows."""

    async def show(context: CommandContext, press: ButtonPress) -> Answer:
        number = int(press.detail) if press.detail is not None and press.detail.isdecimal() else 0
        return await show_page(context, number)

    return PagedList(action, command, show)
