"""`mt corpus add`, `list`, `show`, `lock`, `delete` and `check`: corpora by name, and one as a training sees it."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text

from trainer.artifacts.runs import RunStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.commands.arguments import Argument, Arguments, Commands, Options, flag, option
from trainer.commands.connection import Installation, settings_for_any, with_installation
from trainer.commands.corpus_build import CorpusBuildOptions, run_build
from trainer.commands.corpus_names import uploaded
from trainer.commands.jobs import confirm_deletion
from trainer.commands.terminal import Terminal, columns
from trainer.commands.training import TrainOptions, read_training
from trainer.config.settings import Settings
from trainer.config.validation import parse, safe_name, unreadable
from trainer.contracts.base import Frozen, changed
from trainer.contracts.corpora import CorpusOverview
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import LanguageCode
from trainer.contracts.parameters import CorpusPath
from trainer.contracts.units import share_number
from trainer.contracts.wording import counted, distinct
from trainer.data.corpora import CorpusStore
from trainer.data.folders import folder_notes
from trainer.lab.calls import DELETE_CORPUS, LIST_CORPORA, LOCK_CORPUS, REPORT_CORPUS
from trainer.lab.here import Here
from trainer.reports.leak_notes import leak_warnings, shares_note
from trainer.reports.report_text import ENGLISH
from trainer.reports.run_notes import describe_unknown

if TYPE_CHECKING:
    from trainer.training.inspect_corpus import CorpusInspection


class _CheckOptions(TrainOptions):
    arguments: ClassVar[Arguments] = {
        **{name: argument for name, argument in TrainOptions.arguments.items() if name != "file"},
        "corpus": Argument("NAME", help="name of the corpus to check, or path of a text file"),
    }


class _Note(Frozen):
    language: LanguageCode | None
    is_ipa: bool | None


class _AddOptions(Options):
    file = Argument[Path]("FILE", type=Path, help="text (.txt, .jsonl, .csv or .tsv), or a folder of .txt files")
    name = option("--name NAME", str, "name of the corpus; default: that of the file")
    language = option("--language CODE", str, "code of the language, as kk")
    ipa = Argument[str | None](
        "--ipa ANSWER", choices=("yes", "no"), help="yes: text in IPA; no: text in its usual spelling"
    )


class _ShowOptions(Options):
    corpus = Argument[str]("NAME", help="name of the corpus, or its beginning")


class _DeleteOptions(Options):
    corpus = Argument[str]("NAME", help="complete name of the corpus")
    yes = flag("--yes", "do not ask for the name of the corpus")


def add_to(commands: Commands) -> None:
    corpus = commands.group("corpus", "add, list, inspect and build corpora")
    corpus.add("add", _AddOptions, _add)
    corpus.add("delete", _DeleteOptions, _delete)
    corpus.add("lock", _ShowOptions, _lock)
    corpus.add("list", Options, _list)
    corpus.add("show", _ShowOptions, _show)
    corpus.add("check", _CheckOptions, _check)
    corpus.add("build", CorpusBuildOptions, run_build)


def _add(options: _AddOptions, terminal: Terminal) -> int:
    settings, path = settings_for_any(), options.file
    if not path.exists():
        raise AppError(ErrorCode.DATA_NOT_FOUND, unreadable(path, FileNotFoundError()))
    noted = parse(
        _Note, {"language": options.language, "is_ipa": None if options.ipa is None else options.ipa == "yes"}
    )
    name = options.name or path.resolve().stem

    async def add(installation: Installation) -> CorpusOverview:
        if isinstance(installation, Here):
            return await installation.add_corpus(path, name, language=noted.language, is_ipa=noted.is_ipa)
        return await uploaded(path, installation, terminal, name, language=noted.language, is_ipa=noted.is_ipa)

    added = with_installation(settings, add)
    added = changed(added, notes=distinct((*folder_notes(path, name), *added.notes)))
    for note in added.notes:
        terminal.note(f"Note: {note}")
    facts = ", ".join(filter(None, _facts(added)[1:]))
    terminal.show(added, Text(f"corpus {added.name}: {facts}"), Text(f"next: mt train --corpus {added.name}"))
    return 0


def _list(options: Options, terminal: Terminal) -> int:
    found = with_installation(settings_for_any(), lambda installation: installation.call(LIST_CORPORA))
    rows = columns([("corpus", "bytes", "lines", "languages", "spelling"), *map(_facts, found.corpora)])
    terminal.show(found, rows)
    return 0


def _show(options: _ShowOptions, terminal: Terminal) -> int:
    path = parse(CorpusPath, {"corpus": options.corpus})
    report = with_installation(settings_for_any(), lambda installation: installation.call(REPORT_CORPUS, path))
    terminal.show_report(report, report)
    return 0


def _delete(options: _DeleteOptions, terminal: Terminal) -> int:
    settings, name = settings_for_any(), options.corpus
    known = with_installation(settings, lambda installation: installation.call(LIST_CORPORA)).corpora
    if any(corpus.name == name for corpus in known):  # else the error names it
        confirm_deletion(name, name, name, terminal, asks=not options.yes)
    path = parse(CorpusPath, {"corpus": name})
    with_installation(settings, lambda installation: installation.call(DELETE_CORPUS, path))
    terminal.note(f"{name} is deleted.")
    terminal.show({"deleted": [name]})
    return 0


def _lock(options: _ShowOptions, terminal: Terminal) -> int:
    path = parse(CorpusPath, {"corpus": options.corpus})
    lock = with_installation(settings_for_any(), lambda installation: installation.call(LOCK_CORPUS, path))
    terminal.show(
        lock, Text(f"The test split of each later run on '{options.corpus}' is locked: `mt unlock` reads it.")
    )
    return 0


def _facts(corpus: CorpusOverview) -> tuple[str, ...]:
    lines = "" if corpus.lines is None else counted(corpus.lines, "line")
    spelling = "" if corpus.is_ipa is None else "IPA" if corpus.is_ipa else "usual spelling"
    return (corpus.name, counted(corpus.bytes, "byte"), lines, " ".join(corpus.languages), spelling)


def _check(options: _CheckOptions, terminal: Terminal) -> int:
    settings = settings_for_any()
    if settings.client.url is not None and not _is_here(options.corpus or "", settings):
        message = "With MT_URL set, this command checks a file of this machine: give its path as NAME, or run it there."
        raise AppError(ErrorCode.DATA_NOT_FOUND, message)
    if options.model is None and options.tokenizer is not None:
        options.model = "char_lstm" if options.tokenizer == "char" else "lstm"
    training = read_training(options, settings, terminal)
    effective = training.effective
    from trainer.data.run_corpora import corpus_paths, read_text
    from trainer.tokenizers import load_tokenizer
    from trainer.training.inspect_corpus import inspect_corpus  # torch

    given = effective.tokenizer_id
    tokenizer = None if given is None else load_tokenizer(TokenizerStore(settings.app.artifacts_root).get(given).path)
    runs = RunStore(settings.app.artifacts_root).ancestors(effective)
    ancestors = None if effective.init_from_run_id is None else read_text(training.corpora, runs)
    paths = corpus_paths(training.corpora, effective)
    found = inspect_corpus(effective, paths, tokenizer, training.notes, ancestors=ancestors)
    shown = safe_name(Path(options.corpus or effective.corpus.name).name)
    notes = [Text(f"Note: {note}") for note in found.notes]
    warnings = [Text(f"Warning: {warning}") for warning in leak_warnings(effective, found.leaks)]
    terminal.show(found, columns(_rows(found, shown)), *notes, *warnings, Text(f"\n{found.sample}"))
    return 0


def _is_here(name: str, settings: Settings) -> bool:
    return CorpusStore(settings).has(name) or Path(name).exists()


def _rows(found: "CorpusInspection", name: str) -> list[tuple[str, str]]:
    specials = ", ".join(f"{token} {i}" for token, i in found.special_tokens.items())
    longest = counted(found.longest_line_tokens, "token")
    splits: list[tuple[str, str]] = []
    for split, size in found.splits.items():
        sizes = (counted(size.lines, "line"), counted(size.chars, "character"), counted(size.tokens, "token"))
        unknown = f"unknown: {size.unknown_tokens:,} tokens of {size.unknown_chars:,} characters"
        splits.append((split, f"{', '.join(sizes)}; {unknown}"))
    return [
        ("corpus", f"{name}, {counted(found.corpus.bytes, 'byte')}"),
        ("tokenizer", found.tokenizer_id or found.method),
        ("vocabulary", f"{found.vocab_size:,} tokens, of which special: {specials}"),
        *splits,
        *((f"{split}, in training", ENGLISH.note(shares_note(leak))) for split, leak in found.leaks.items()),
        (
            "unknown",
            f"of the text held out for validation {share_number(found.unknown_share)} of tokens,"
            f" {describe_unknown(found.unknown_char_share)}",
        ),
        ("longest line", f"{counted(found.longest_line_chars, 'character')}; {longest} to train on"),
        ("batch", f"inputs {found.inputs_shape}, targets {found.targets_shape}; {found.batches:,} in an epoch"),
        ("tokens", " | ".join(found.sample_tokens)),
    ]
