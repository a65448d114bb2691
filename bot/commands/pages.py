"""Lists shown page by page; the page is in the buttons' ids, so that they survive a restart."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import discord

from bot.buttons import ButtonPress, button, button_row
from bot.language import _

T = TypeVar("T")

_PAGE_ITEMS = 10
_LIST = "list"


class Page(NamedTuple, Generic[T]):
    """A page of a list, and the buttons to the pages around it."""

    items: Sequence[T]
    title: str
    """Number of the page, for the end of a title; empty if there is one page."""
    buttons: discord.ui.View


def page_of(items: Sequence[T], number: int, action: str) -> Page[T]:
    """Return page `number`, from 0, or the last one; `action` is that of the buttons."""
    pages = max(1, -(-len(items) // _PAGE_ITEMS))
    page = min(number, pages - 1)
    shown = items[page * _PAGE_ITEMS : (page + 1) * _PAGE_ITEMS]
    if pages == 1:
        return Page(shown, "", button_row())
    back, following = page - 1 if page else pages + 1, page + 1  # ids must be different
    buttons = button_row(
        button(action, _LIST, _("« Back"), detail=f"{back}", disabled=page == 0),
        button(action, _LIST, f"{page + 1}/{pages}", detail=f"{page}"),
        button(action, _LIST, _("Next »"), detail=f"{following}", disabled=following == pages),
    )
    return Page(shown, f" · {_('page {page} of {pages}', page=page + 1, pages=pages)}", buttons)


def page_number(press: ButtonPress) -> int:
    return int(press.detail) if press.detail is not None and press.detail.isdecimal() else 0
