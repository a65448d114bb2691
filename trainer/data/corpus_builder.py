"""Builds IPA corpora of equal size, one per language: identify, convert, clean, cut, and account for every line."""

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainer.contracts.base import FileRecord, Frozen, changed
from trainer.contracts.corpora import (
    BuildFilter,
    BuildProgress,
    BuiltLanguage,
    CorpusManifest,
    IpaCheck,
    LanguageState,
)
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.cleaning import MIN_IPA_SHARE, MIN_LINE_CHARACTERS, Cleaner, StepCounts
from trainer.data.corpus_sources import Source
from trainer.data.ipa import Convert, IpaComparison
from trainer.data.language_id import Identify
from trainer.system.files import DISK, hidden_beside, try_lock, whole_record, write_atomically

_SHOWN_DIFFERENCES = 50


class BuildOptions(Frozen):
    """Options that change the corpora."""

    thresholds: dict[str, float]
    """Smallest probability of language identification by language, in the order of the build; 0: accept all."""
    max_characters: int | None = None
    """Limit per language."""
    off: tuple[BuildFilter, ...] = ()
    """Filters that are left out; without `cut` the corpora have different sizes."""


class Tools(NamedTuple):
    """Functions of optional libraries; None leaves the step out."""

    identify: Identify | None
    """Identifies the language of a document; needed for thresholds above 0."""
    load_ipa: Callable[[str], Convert] | None
    """Returns the converter of a language; None: the source is in IPA already."""
    load_second_ipa: Callable[[str], Convert] | None
    """Returns the converter to compare with; needs `load_ipa`."""
    versions: dict[str, str]


class Reporting(NamedTuple):
    """The receiver of the progress, and the number of documents after which it is reported and stored."""

    report: Callable[[BuildProgress], None]
    every_documents: int


def build_ipa_corpora(
    source: Source, options: BuildOptions, tools: Tools, out_folder: Path, reporting: Reporting
) -> CorpusManifest:
    """Write `<source>_<language>_ipa.txt` for each language, and the manifest; return the manifest.

    A build that was interrupted continues from the stored state, if the options and versions are the same. Raises
    CORPUS_EMPTY if nothing of a language is left, and CONFLICT during another build of this source.
    """
    folder = out_folder / f".{source.name}_build"
    DISK.make_folder(folder)
    lock = try_lock(folder / "lock")
    if lock is None:
        message = f"Another build of '{source.name}' is running: wait for it, or choose another folder by `--out-dir`."
        raise AppError(ErrorCode.CONFLICT, message)
    with lock:
        builds = {language: _LanguageBuild(folder, language, source, options, tools) for language in options.thresholds}
        for language, build in builds.items():
            build.run(reporting)
            if not build.counts.kept_characters:
                message = f"Nothing is left of '{language}': {build.reason()}."
                raise AppError(ErrorCode.CORPUS_EMPTY, message)
        limits = [] if options.max_characters is None else [options.max_characters]
        if "cut" not in options.off:
            limits += [build.counts.kept_characters for build in builds.values()]
        budget = min(limits, default=None)
        manifest = CorpusManifest(
            source=source.name,
            dataset=source.dataset,
            is_ipa=tools.load_ipa is None,
            min_ipa_share=MIN_IPA_SHARE,
            min_line_characters=MIN_LINE_CHARACTERS,
            off=options.off,
            budget_characters=budget,
            languages={language: build.finish(out_folder, budget) for language, build in builds.items()},
            versions=tools.versions,
        )
        write_atomically(
            out_folder / f"{source.name}_manifest.json", manifest.model_dump_json(indent=2).encode() + b"\n"
        )
        done = hidden_beside(folder)
        DISK.rename(folder, done)  # with the lock, so that no other build begins in it
    DISK.remove_folder(done)
    return manifest


class _LanguageBuild:
    """The build of one language: cleaned lines in a stage file, and their state beside it."""

    def __init__(self, folder: Path, language: str, source: Source, options: BuildOptions, tools: Tools) -> None:
        self._language, self._source, self._options, self._tools = language, source, options, tools
        self._threshold = options.thresholds[language]
        self._lines_path, self._state_path = folder / f"{language}.lines", folder / f"{language}.json"
        self._state = self._stored_state()
        self.counts = StepCounts(self._state.steps)

    def run(self, reporting: Reporting) -> None:
        """Read the documents that have not been read yet, and keep their cleaned lines."""
        if self._state.is_complete:
            return
        convert = None if self._tools.load_ipa is None else self._tools.load_ipa(self._language)
        comparison = self._comparison(convert)
        documents, rejected = self._state.documents, self._state.rejected_documents
        with self._lines_path.open("ab") as file:
            file.truncate(self._state.stage_bytes)
            cleaner = Cleaner(self._language, self.counts, self._kept_lines(), self._options.off)
            for document in self._source.read(self._language, documents):
                documents += 1
                lines = list(self._lines(document))
                is_accepted = self._accepts(document, lines)
                rejected += not is_accepted
                if is_accepted:
                    if comparison is not None:
                        comparison.add(document)
                    file.write("".join(self._cleaned(lines, convert, cleaner)).encode())
                limit = self._options.max_characters
                if limit is not None and self.counts.kept_characters >= limit:
                    break
                if documents % reporting.every_documents == 0:
                    self._save(file, documents, rejected, comparison)
                    reporting.report(self._progress())
            self._save(file, documents, rejected, comparison, is_complete=True)
        reporting.report(self._progress())

    def reason(self) -> str:
        """Return why nothing is left of the documents."""
        if self._state.documents == self._state.rejected_documents > 0:
            return f"its documents were rejected. Check their language, or lower the threshold of {self._language}"
        return f"its lines were dropped. They need at least {MIN_LINE_CHARACTERS} characters of its own in IPA"

    def finish(self, out_folder: Path, budget: int | None) -> BuiltLanguage:
        """Write the kept lines up to a number of characters; return their record."""
        kept: list[str] = []
        characters = 0
        for line in self._kept_lines():
            characters += len(line) + 1
            has_room = budget is None or characters <= budget
            if has_room:
                kept.append(f"{line}\n")
            self.counts.count("cut", line, line if has_room else None)
        data = "".join(kept).encode()
        path = out_folder / f"{self._source.name}_{self._language}_ipa.txt"
        write_atomically(path, data)
        state, check = self._state, self._state.ipa_check
        return BuiltLanguage(
            file=FileRecord(path=path.name, bytes=len(data), sha256=sha256(data).hexdigest()),
            source_sha256=self._source.sha256.get(self._language),
            lines=len(kept),
            characters=sum(map(len, kept)),
            threshold=self._threshold,
            documents=state.documents,
            rejected_documents=state.rejected_documents,
            rejected_share=state.rejected_documents / max(1, state.documents),
            steps=self.counts.records(),
            removed=tuple(self.counts.removals()),
            ipa_check=check and changed(check, differences=check.differences[:_SHOWN_DIFFERENCES]),
        )

    def _stored_state(self) -> LanguageState:
        """Return the state of an interrupted build with these options, or a new one."""
        tools = self._tools
        options = (
            *(self._source.name, self._source.sha256.get(self._language), self._threshold),
            *(
                self._options.max_characters,
                sorted(self._options.off),
                tools.load_ipa is None,
                tools.load_second_ipa is None,
            ),
            *sorted(tools.versions.items()),
        )
        request = sha256(repr(options).encode()).hexdigest()
        stored = whole_record(self._state_path, LanguageState)  # broken: of another version of this program
        if stored is not None and stored.request_sha256 == request:
            return stored
        return LanguageState(request_sha256=request)

    def _comparison(self, convert: Convert | None) -> IpaComparison | None:
        load = self._tools.load_second_ipa
        if convert is None or load is None:
            return None
        return IpaComparison(convert, load(self._language), self._state.ipa_check or IpaCheck())

    def _lines(self, document: str) -> Iterator[str]:
        for raw in document.split("\n"):
            line = raw.strip()
            self.counts.count("blank_lines", raw, line or None)
            if line:
                yield line

    def _accepts(self, document: str, lines: list[str]) -> bool:
        """Return True if the document is in its language."""
        is_accepted = True
        if self._threshold > 0 and self._tools.identify is not None:
            language, probability = self._tools.identify(document)
            is_accepted = language == self._language and probability >= self._threshold
        for line in lines:
            self.counts.count("language_identification", line, line if is_accepted else None)
        return is_accepted

    def _cleaned(self, lines: list[str], convert: Convert | None, cleaner: Cleaner) -> Iterator[str]:
        for line in lines:
            converted = line if convert is None else convert(line)
            self.counts.count("ipa", line, converted)
            cleaned = cleaner.clean(converted)
            if cleaned is not None:
                yield f"{cleaned}\n"

    def _kept_lines(self) -> list[str]:
        return self._lines_path.read_text(encoding="utf-8").splitlines()

    def _save(
        self,
        file: BinaryIO,
        documents: int,
        rejected: int,
        comparison: IpaComparison | None,
        *,
        is_complete: bool = False,
    ) -> None:
        """Store the state after the lines that it counts."""
        file.flush()
        DISK.flush(file.fileno())
        self._state = changed(
            self._state,
            documents=documents,
            rejected_documents=rejected,
            stage_bytes=os.fstat(file.fileno()).st_size,
            steps=self.counts.records(),
            ipa_check=None if comparison is None else comparison.record(),
            is_complete=is_complete,
        )
        write_atomically(self._state_path, self._state.model_dump_json().encode())

    def _progress(self) -> BuildProgress:
        return BuildProgress(
            language=self._language,
            documents=self._state.documents,
            rejected_documents=self._state.rejected_documents,
            lines=self.counts.kept_lines,
            characters=self.counts.kept_characters,
        )
