"""The cards of a tokenizer training, and of a corpus build with its progress by language and its manifest's counts."""

from collections.abc import Iterator

import discord

from bot.messages.run_card import progress_bar
from bot.messages.text import (
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    code_block,
    count,
    make_embed,
    percent,
    plain,
    without_links,
)
from trainer.contracts.corpora import BuildProgress, BuildStatus, CorpusManifest
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.contracts.tokenizers import TokenizerStats
from trainer.lab.language import _, numeral

_MAX_ERROR, _MAX_TABLE = 1500, 3000


def tokenizer_card(status: TokenizerStatus) -> discord.Embed:
    """Return the card of a tokenizer in its current state."""
    name, footer = plain(status.label or status.tokenizer_id), status.tokenizer_id
    match status.status:
        case "queued":
            return make_embed(
                GREY, f"⏳ {_('Queued: tokenizer {name}', name=name)}", [status.method, status.message], footer
            )
        case "running":
            return make_embed(
                BLURPLE, f"🔤 {_('Training: tokenizer {name}', name=name)}", [status.method, status.message], footer
            )
        case "failed":
            code = "" if status.error is None else f"`{status.error.code}` "
            lines = [f"{code}{without_links(clamp(status.message, _MAX_ERROR))}"]
            return make_embed(RED, f"❌ {_('Failed: tokenizer {name}', name=name)}", lines, footer)
        case _:
            return make_embed(GREEN, f"✅ {_('Completed: tokenizer {name}', name=name)}", _result(status), footer)


def _result(status: TokenizerStatus) -> list[str]:
    lines = [f"{status.method} · {count(status.vocab_size or 0, 'token')}"]
    lines += [] if status.stats is None else [_fit(status.stats)]
    return [*lines, _("Next: {commands}", commands=f"`/mt train tokenizer:{status.tokenizer_id}`")]


def _fit(stats: TokenizerStats) -> str:
    return _(
        "Held-out text: {share} unknown characters · {per_char} tokens/character · {per_word} tokens/word",
        share=percent(stats.unknown_char_share or 0.0),
        per_char=numeral(stats.avg_tokens_per_char, ".3f"),
        per_word=numeral(stats.avg_tokens_per_word, ".3f"),
    )


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
    lines = [*_lines(status)]
    if status.status == "queued":
        return make_embed(GREY, f"⏳ {_('Queued: corpora from {source}', source=source)}", lines, build_id)
    return make_embed(BLURPLE, f"🏗 {_('Building corpora: {source}', source=source)}", lines, build_id)


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
                    share=percent(each.share),
                    switch=switch,
                )
                yield f"⚠ {text}"


def _table(manifest: CorpusManifest) -> list[str]:
    rows = [("", _("documents"), _("rejected"), _("lines"), _("characters"))]
    for language, built in manifest.languages.items():
        numbers = (
            numeral(built.documents),
            percent(built.rejected_share),
            numeral(built.lines),
            numeral(built.characters),
        )
        rows.append((language, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
