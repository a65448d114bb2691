"""Cuts texts into sections, of which each line is one, and shuffles the characters of sections."""

from collections.abc import Iterable, Sequence
from random import Random

from trainer.contracts.experiments import TextOptions
from trainer.contracts.tokenizers import Normalization
from trainer.data.normalization import normalized


def cut_sections(lines: Iterable[str], options: TextOptions) -> list[str]:
    """Return the lines that are long enough, until `max_characters` would be exceeded.

    The first section is always taken, so that a text with a long one is not empty.
    """
    sections: list[str] = []
    characters = 0
    for line in lines:
        if len(line) < options.min_characters:
            continue
        characters += len(line)
        if sections and options.max_characters is not None and characters > options.max_characters:
            break
        sections.append(line)
    return sections


def shuffle_sections(sections: Sequence[str], language: str, normalization: Normalization) -> list[str]:
    """Shuffle the characters within each section, the same way for every model.

    A combining character may meet another letter, so the result is normalized again.
    """
    shuffled: list[str] = []
    for number, section in enumerate(sections):
        characters = list(section)
        Random(f"{language}:{number}").shuffle(characters)  # noqa: S311  no secret depends on it
        shuffled.append(normalized("".join(characters), normalization))
    return shuffled
