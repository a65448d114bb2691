"""The report of a corpus: its size, its most frequent characters, and the runs that were trained on it."""

import unicodedata
from collections.abc import Sequence

from trainer.contracts.corpora import CorpusOverview, CorpusStatistics
from trainer.contracts.reports import Cell, Report, Table, column, counted_note, note, number_note, section

_HIDDEN = ("C", "M", "Z")
"""Unicode categories of characters that are named by their code point alone: controls, marks, separators."""
_MAX_NAMES = 20


def corpus_report(overview: CorpusOverview, statistics: CorpusStatistics, runs: Sequence[str]) -> Report:
    """Return the report of a corpus; `runs` are the names of the runs that were trained on it, the newest first."""
    facts: list[tuple[Cell, ...]] = [
        (note("size"), counted_note(overview.bytes, "byte")),
        (note("lines"), number_note(statistics.lines, "count")),
        (note("characters"), number_note(statistics.characters, "count")),
        (note("distinct characters"), number_note(statistics.distinct, "count")),
    ]
    if overview.languages:
        facts.append((note("languages"), ", ".join(overview.languages)))
    if overview.is_ipa is not None:
        facts.append((note("spelling"), note("IPA") if overview.is_ipa else note("usual spelling")))
    trained = note("No run was trained on it")
    if runs:
        names = ", ".join([*runs[:_MAX_NAMES], *(["…"] if len(runs) > _MAX_NAMES else [])])
        trained = note("{runs} trained on it: {names}", runs=counted_note(len(runs), "run"), names=names)
    characters = Table(
        name="characters",
        title=note("The most frequent characters"),
        columns=(column(""), column(""), column("occurrences", "count"), column("share", "share")),
        rows=tuple(
            (_shown(character), f"U+{ord(character):04X}", number, number / statistics.characters)
            for character, number in statistics.most_frequent
        ),
        n_titles=2,
    )
    sections = [
        *section(
            "Text",
            [
                Table(name="facts", title=note("Text"), columns=(column(""), column("")), rows=tuple(facts)),
                trained,
                *(note("{text}", text=text.removesuffix(".")) for text in overview.notes),
            ],
        ),
        *section("Characters", [characters]),
    ]
    return Report(title=note("Corpus {name}", name=overview.name), sections=tuple(sections))


def _shown(character: str) -> str:
    """Return a character for a table, or a space for one that is not visible by itself."""
    return " " if unicodedata.category(character)[0] in _HIDDEN else character
