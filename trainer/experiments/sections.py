"""Sections of texts, of which each line is one, the losses of their tokens, and the scores that follow from them.

A position is a character that no earlier token of its section covers. The first token of a section is never scored.
Each scoring mode counts other positions.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import TextOptions
from trainer.contracts.tokenizers import Normalization
from trainer.data.normalization import normalized
from trainer.experiments.quantities import Scores, no_position
from trainer.system.files import write_atomically

_COLUMNS = 5


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


class Sections(NamedTuple):
    """The characters of all sections of a text, one after the other."""

    characters: NDArray[np.uint32]
    """Code points."""
    starts: NDArray[np.int64]
    """The first character of each section, and the number of all characters."""

    @classmethod
    def of(cls, lines: Sequence[str]) -> "Sections":
        ends: NDArray[np.int64] = np.cumsum([0, *map(len, lines)], dtype=np.int64)
        return cls(np.frombuffer("".join(lines).encode("utf-32-le"), dtype=np.uint32), ends)


class TextLosses(NamedTuple):
    """The tokens of all sections of a text, in order: arrays of equal length."""

    section: NDArray[np.int64]
    """Number of the token's section, from 0."""
    start: NDArray[np.int64]
    """First character of the token in its section."""
    end: NDArray[np.int64]
    """The character behind its last one."""
    loss_nats: NDArray[np.float64]
    """-ln p of the token given the tokens before it in the section; NaN for the first token, which is not scored."""
    is_unknown: NDArray[np.bool_]
    """The token is the model's unknown token."""

    def save(self, path: Path) -> None:
        """Write the losses, column by column as 64-bit floats; the file appears complete."""
        path.parent.mkdir(exist_ok=True)
        columns: NDArray[np.float64] = np.stack(
            (self.section, self.start, self.end, self.loss_nats, self.is_unknown), dtype=np.float64
        )
        write_atomically(path, columns.tobytes())

    @classmethod
    def load(cls, path: Path) -> "TextLosses":
        """Read stored losses; raises DATA_NOT_FOUND for a damaged file."""
        stored: NDArray[np.float64] = np.fromfile(path, dtype=np.float64)
        if len(stored) % _COLUMNS or path.stat().st_size % (8 * _COLUMNS):
            raise AppError(ErrorCode.DATA_NOT_FOUND, "Stored losses of an experiment are damaged: run it again.")
        section, start, end, loss_nats, is_unknown = stored.reshape(_COLUMNS, -1)
        return cls(
            section.astype(np.int64),
            start.astype(np.int64),
            end.astype(np.int64),
            loss_nats,
            is_unknown.astype(np.bool_),
        )


def known_characters(sections: Sections, raw: Iterable[TextLosses]) -> NDArray[np.bool_]:
    """Return for each character of a text True if no model reads it as part of an unknown token."""
    changes: NDArray[np.int64] = np.zeros(len(sections.characters) + 1, dtype=np.int64)
    for losses in raw:
        first, behind = _spans(sections, losses)
        np.add.at(changes, first[losses.is_unknown], 1)
        np.add.at(changes, behind[losses.is_unknown], -1)
    unknown: NDArray[np.int64] = np.cumsum(changes[:-1])
    return np.equal(unknown, 0)


def frequent_characters(lines: Iterable[str], minimum: int) -> set[str]:
    """Return the characters that occur at least `minimum` times in all lines together."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    return {character for character, count in counts.items() if count >= minimum}


def are_among(sections: Sections, characters: Collection[str]) -> NDArray[np.bool_]:
    """Return for each character of a text True if it is among the given ones."""
    return np.isin(sections.characters, Sections.of(list(characters)).characters)


def section_scores(sections: Sections, losses: TextLosses, scored: NDArray[np.bool_] | None = None) -> Scores:
    """Return the scores of all sections, those with nothing scored too.

    A token is scored only if all of its characters are; None scores all characters.
    """
    first, behind = _spans(sections, losses)
    reach: NDArray[np.int64] = np.maximum.accumulate(behind)
    new: NDArray[np.int64] = np.diff(reach, prepend=0)
    steps: NDArray[np.int64] = np.diff(losses.section, prepend=-1)
    counts: NDArray[np.bool_] = np.equal(steps, 0)
    n_total = _sums(sections, losses.section[counts], new[counts].astype(np.float64))
    if scored is not None:
        refused: NDArray[np.int64] = np.concatenate(([0], np.cumsum(~scored)))
        counts &= np.equal(refused[behind], refused[first])
    n_scored = _sums(sections, losses.section[counts], new[counts].astype(np.float64))
    loss_sum = _sums(sections, losses.section[counts], losses.loss_nats[counts])
    numbers: NDArray[np.int64] = np.arange(len(n_total), dtype=np.int64)
    return Scores(numbers, loss_sum, n_scored.astype(np.int64), n_total.astype(np.int64))


def scored_by_all(scores: Sequence[Scores], text: str) -> list[Scores]:
    """Return the scores of the sections of which every model has scored a position.

    Raises INVALID_INPUT if there is no such section.
    """
    by_model: NDArray[np.int64] = np.stack([each.n_scored for each in scores])
    kept = np.flatnonzero(np.all(by_model, axis=0))
    if not len(kept):
        raise no_position(text)
    return [
        Scores(each.sections[kept], each.loss_sum[kept], each.n_scored[kept], each.n_total[kept]) for each in scores
    ]


def _spans(sections: Sections, losses: TextLosses) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first character of each token in its text, and the character behind its last one."""
    section: NDArray[np.int64] = sections.starts[losses.section]
    first: NDArray[np.int64] = section + losses.start
    behind: NDArray[np.int64] = section + losses.end
    return first, behind


def _sums(sections: Sections, section: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of the tokens' values in each section."""
    return np.bincount(section, weights=values, minlength=len(sections.starts) - 1).astype(np.float64)
