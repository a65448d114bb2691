"""Words of a text: what stands between white space.

A zero-width space (U+200B) separates words too: Khmer, Thai, Burmese and Tibetan texts have it where no space is shown
(Unicode 16, chapter 16; UAX 14, class ZW). Joiners (U+200C, U+200D) stand inside words.
"""

import re

ZERO_WIDTH_SPACE = "\u200b"
_ENDS = re.compile(rf"\A[\s{ZERO_WIDTH_SPACE}]+|[\s{ZERO_WIDTH_SPACE}]+\Z")


def split_words(text: str) -> list[str]:
    """Return the words of a text, without what separates them."""
    return text.replace(ZERO_WIDTH_SPACE, " ").split()


def is_separator(text: str) -> bool:
    """Return whether a text has characters, and all of them separate words."""
    return text != "" and not split_words(text)


def without_separators(text: str) -> str:
    """Return a text without what separates words at its ends."""
    return _ENDS.sub("", text)
