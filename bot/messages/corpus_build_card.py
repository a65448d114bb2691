"""The card of a corpus build: its progress by language, and in the end the counts of the manifest."""

from collections.abc import Iterator

import discord

from bot.messages.run_card import progress_bar
from bot.messages.text import BLURPLE, GREEN, RED, code_block, count, make_embed, without_links
from trainer.artifacts.corpus_builds import BuildStatus
from trainer.contracts.corpora import BuildProgress, CorpusManifest
from trainer.people.language import _, numeral

_MAX_TABLE = 3000


def corpus_build_card(build_id: str, status: BuildStatus) -> discord.Embed:
    """Return the card of a build in its current state."""
    source = status.request.source
    if status.error is not None:
        return make_embed(
            RED,
            f"❌ {_('Corpora not built: {source}', source=source)}",
            [without_links(status.error.message), *_lines(status)],
            build_id,
        )
    if status.manifest is not None:
        corpus = next(iter(status.manifest.languages.values())).file.path.removesuffix(".txt")
        lines = [
            code_block("\n".join(_table(status.manifest)), _MAX_TABLE),
            *_warnings(status.manifest),
            _("Next: {commands}", commands=f"`/mt train corpus:{corpus}`"),
        ]
        return make_embed(GREEN, f"✅ {_('Corpora built: {source}', source=source)}", lines, build_id)
    return make_embed(BLURPLE, f"🏗 {_('Building corpora: {source}', source=source)}", [*_lines(status)], build_id)


def _lines(status: BuildStatus) -> Iterator[str]:
    """Yield the progress of each language."""
    progress = {one.language: one for one in status.progress}
    for language in status.request.languages:
        yield f"**{language}** {_progress(progress[language], status) if language in progress else _('· waiting')}"


def _progress(one: BuildProgress, status: BuildStatus) -> str:
    most = status.request.characters
    bar = "" if most is None else f"{progress_bar(min(100.0, 100 * one.characters / most))} "
    counts = _(
        "{documents}, {rejected} rejected · kept {lines}, {characters}",
        documents=count(one.documents, "document"),
        rejected=count(one.rejected_documents),
        lines=count(one.lines, "line"),
        characters=count(one.characters, "character"),
    )
    return f"{bar}{counts}"


def _warnings(manifest: CorpusManifest) -> Iterator[str]:
    """Yield a line for each filter that removed much of a language."""
    for language, built in manifest.languages.items():
        for each in built.removed:
            if each.is_large:
                switch = "threshold:0" if each.step == "language_identification" else f"keep:{each.step}"
                text = _(
                    "**{language}**: `{filter}` removed {share} of the characters; `{switch}` leaves it out.",
                    language=language,
                    filter=each.step,
                    share=numeral(each.share, ".1%"),
                    switch=switch,
                )
                yield f"⚠ {text}"


def _table(manifest: CorpusManifest) -> list[str]:
    rows = [("", _("documents"), _("rejected"), _("lines"), _("characters"))]
    for language, built in manifest.languages.items():
        numbers = (
            numeral(built.documents),
            numeral(built.rejected_share, ".1%"),
            numeral(built.lines),
            numeral(built.characters),
        )
        rows.append((language, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
