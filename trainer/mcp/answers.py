"""The form and the bound of answers to agents: short texts between marks, and parts of what is longer."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeVar

from pydantic_core import to_json

from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.reports import Report
from trainer.reports.report_text import plain_lines

MAX_ANSWER_BYTES = 200_000
"""The most bytes of one answer, with its text and its structured content."""
MAX_CONTENT_BYTES = MAX_ANSWER_BYTES - 8_000
"""The rest is room for sentences, addresses and the message around them."""
PART_CHARACTERS = 16_000
"""The most characters of a text, about 5,000 tokens. Each takes at most 6 bytes of JSON, so a part is in the bound."""
PART_BYTES = 96_000
"""The bytes of a part of a file that is no text: 128,000 in base64."""
SHORT_CHARACTERS = 4_000
"""The most characters of a record that stands in the text of an answer, too; a longer one is shortened there."""
_ITEMS = (100, 30, 10, 3, 1)
"""Numbers of items that a shortened list keeps, the largest one that is low enough."""
_SHOWN_CHARACTERS = 200
"""Characters that a shortened text in a record keeps."""
Content = TypeVar("Content", str, bytes)
_END = re.compile(r"<(?=/\s*data\b)", re.IGNORECASE)


def marked(text: str) -> str:
    r"""Return a text between marks: what stands there is data of people and models.

    An end mark in the text becomes `<\/data`, in which JSON reads the same characters.
    """
    return f"<data>\n{_END.sub('<' + chr(92) * 2, text)}\n</data>"


def report_lines(report: Report) -> str:
    return "\n".join(plain_lines(report))


def complete_text(found: Frozen | str, report: Report | None) -> str:
    """Return an answer as one text: the report that people see, and the record as JSON unless it is the report."""
    if isinstance(found, str):
        return found
    record = [] if found is report else [found.model_dump_json(exclude_none=True)]
    return "\n".join([*([] if report is None else [report_lines(report)]), *record])


def text_for_models(found: Frozen | str, report: Report | None, complete: str) -> str:
    """Return the text of an answer: its beginning, the report of a record, or the record as JSON, shortened if long."""
    if report is not None:
        return report_lines(report)[:PART_CHARACTERS]
    if isinstance(found, str):
        return complete[:PART_CHARACTERS]
    return complete if len(complete) <= SHORT_CHARACTERS else _outline(found)


def is_in_bound(found: Frozen, text: str) -> bool:
    """Return whether one answer can have a record and a text."""
    return len(found.model_dump_json().encode()) + len(to_json(text)) < MAX_CONTENT_BYTES


def parts_in(size: int, largest: int) -> int:
    """Return the number of parts of a text or a file; an empty one has one."""
    return max(1, -(-size // largest))


def cut(content: Content, part: int, largest: int) -> Content:
    """Return a part of a text or of bytes by its number; raises INVALID_INPUT for one that does not exist."""
    count = parts_in(len(content), largest)
    if not 1 <= part <= count:
        raise AppError(ErrorCode.INVALID_INPUT, f"There is no part {part}: the last one is {count}.")
    return content[(part - 1) * largest : part * largest]


def _outline(found: Frozen) -> str:
    """Return a record as JSON in which lists and texts are shortened, and say what they leave out."""
    texts = (to_json(_shortened(found, items)).decode() for items in _ITEMS)
    text = next((one for one in texts if len(one) <= SHORT_CHARACTERS), None)
    text = text or to_json(_shortened(found, _ITEMS[-1])).decode()
    left = len(text) - SHORT_CHARACTERS
    return text if left <= 0 else f"{text[:SHORT_CHARACTERS]} … {left:,} more characters of this outline"


def _shortened(value: object, items: int) -> object:
    if isinstance(value, Frozen):
        fields: dict[str, object] = vars(value)
        return {name: _shortened(one, items) for name, one in fields.items() if one is not None}
    if isinstance(value, str):
        left = len(value) - _SHOWN_CHARACTERS
        return value if left <= 0 else f"{value[:_SHOWN_CHARACTERS]} … {left:,} more characters"
    if isinstance(value, tuple | list):
        members: Sequence[object] = value
        left = len(members) - items
        found = [_shortened(one, items) for one in members[:items]]
        return found if left <= 0 else [*found, f"… {left:,} more of {len(members):,} items"]
    if isinstance(value, Mapping):
        entries: Mapping[str, object] = value
        left = len(entries) - items
        kept = {name: _shortened(entries[name], items) for name in islice(entries, items)}
        return kept if left <= 0 else {**kept, "…": f"{left:,} more of {len(entries):,} entries"}
    return value
