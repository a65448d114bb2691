"""The utterances of a transcript in CHAT, the format of CHILDES and TalkBank, without its codes.

Codes are those of the CHAT manual (MacWhinney 2000, https://talkbank.org/0info/manuals/CHAT.pdf).
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SUFFIX = ".cha"
_SPEAKER = re.compile(r"\*([^:\s]{1,7}):\t?(.*)", re.DOTALL)
_CODES = re.compile(
    r"\x15[^\x15]*\x15"  # the time in the recording
    r"|\[[^\]]*\]"  # a repetition, correction or comment: [/], [//], [= …]
    r"|(?<!\S)&(?:=|\+|~|\*)\S*"  # a laugh, a fragment, a nonword, a word of another speaker
    r"|(?<!\S)(?:xxx|yyy|www)(?![^\s.,!?])"  # speech that nobody could write down
    r"|(?<!\S)0\S*"  # an omitted word
    r"|\([.\d:]+\)"  # a pause
    r"|(?<!\S)\+[<^\",+](?=\s)"  # a link to the utterance before
    r"|(?<=\w)@[\w:$&+-]+"  # the form of a word: @l, @s:eng
    r"|(?<=\w):(?=\w|\s|$)|[<>()^↑↓≠ˈˌ‡„]|(?<!\S)&-"  # scopes, shortened words, lengthening, stress, tags, a filler
)
_LAST_SIGN = re.compile(r"\+\S*?([.?!])(?=\s*$)")
"""The end of an utterance that is interrupted, quoted or trails off: its last sign is that of a plain one."""
_SPACED_SIGN = re.compile(r" (?=[.,;:?!]+(?: |$))")
"""The space that CHAT has before punctuation, which would be a boundary between words where it is written."""


class Utterance(NamedTuple):
    """What a speaker has said, in words and punctuation."""

    speaker: str
    text: str


def utterances(lines: Iterable[str]) -> Iterator[Utterance]:
    """Yield the main lines of a transcript; those without a word, headers and dependent tiers are left out."""
    for line in _joined(lines):
        if (main := _SPEAKER.match(line)) is not None:
            words = _LAST_SIGN.sub(r"\1", _CODES.sub("", main[2])).replace("_", " ").split()
            text = _SPACED_SIGN.sub("", " ".join(words))
            if any(sign.isalnum() for sign in text):
                yield Utterance(main[1], text)


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines with their continuations, which begin with a tab."""
    waiting = ""
    for line in lines:
        if line.startswith("\t"):
            waiting = f"{waiting} {line.strip()}"
        else:
            yield waiting
            waiting = line
    yield waiting
