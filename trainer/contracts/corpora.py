"""Records of corpora: what a list shows of one, uploads, and the manifest, state and progress of a build."""

from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from trainer.contracts.base import FileRecord, Frozen, Identifier, Names, Sha256, Timestamp
from trainer.contracts.experiments import LanguageCode
from trainer.contracts.job_status import JobPage, JobStatus

StepName = Literal[
    "blank_lines",
    "language_identification",
    "ipa",
    "symbol_map",
    "ipa_share",
    "foreign_words",
    "other_characters",
    "short_lines",
    "repeated_lines",
    "cut",
]
"""The steps of a build, in their order."""
BuildFilter = Literal["ipa_share", "foreign_words", "other_characters", "short_lines", "repeated_lines", "cut"]
"""The steps that a build can leave out; a threshold of 0 leaves out the language identification."""
FILTERS: tuple[BuildFilter, ...] = get_args(BuildFilter)
MAX_REMOVED_SHARE = 0.1
"""A build warns if one step removes a larger share of the characters, except for the cut to equal sizes."""


class BuildStep(Frozen):
    """Lines and characters before and after a step; the end of a line counts as a character."""

    step: StepName
    lines_in: int = 0
    characters_in: int = 0
    lines_out: int = 0
    characters_out: int = 0
    changes: int = 0
    """Characters replaced (symbol_map, other_characters), or words removed (foreign_words)."""


class Removal(Frozen):
    """Characters that a step of a build removed."""

    step: StepName
    characters: int
    share: float
    """Share of the characters that the step received."""

    @property
    def is_large(self) -> bool:
        """True if a user should know of it."""
        return self.step != "cut" and self.share > MAX_REMOVED_SHARE


class IpaDifference(Frozen):
    """A segment that turkic-translit and epitran write differently; empty where only one of them writes it."""

    turkic_translit: str
    epitran: str
    count: int
    word: str
    """The first word with this difference."""


class IpaCheck(Frozen):
    """The words of a text in the IPA of turkic-translit and of epitran, compared."""

    words: int = 0
    differing_words: int = 0
    differences: tuple[IpaDifference, ...] = ()
    """The most frequent first."""


class BuiltLanguage(Frozen):
    """A language of built corpora."""

    file: FileRecord
    source_sha256: Sha256 | None
    """SHA-256 of the local text; None for a data set on the hub."""
    lines: int
    characters: int
    threshold: float
    """Smallest probability of language identification; 0: every document was accepted without it."""
    documents: int
    rejected_documents: int
    rejected_share: float
    """Rejected documents, as a share of all documents read."""
    steps: tuple[BuildStep, ...]
    removed: tuple[Removal, ...]
    """The steps that removed characters."""
    ipa_check: IpaCheck | None = None


class CorpusManifest(Frozen):
    """`<source>_manifest.json`: every line and character that a build took away, and the tools that did it."""

    schema_version: Literal[1] = 1
    source: str
    dataset: str | None
    """The data set on the hub; None: local text."""
    is_ipa: bool
    """True if the source was in IPA already."""
    min_ipa_share: float
    min_line_characters: int
    off: tuple[BuildFilter, ...]
    """Filters that the build left out."""
    budget_characters: int | None
    """Characters of the language with the fewest after cleaning, or the limit given; no file has more.

    None: the corpora were not cut.
    """
    languages: dict[str, BuiltLanguage]
    versions: dict[str, str]
    """Versions of the tools that were used."""


class CorpusNote(Frozen):
    """`<corpus>.json`: what is known of a corpus that somebody has added or sent."""

    schema_version: Literal[1] = 1
    language: str | None = None
    is_ipa: bool | None = None
    lines: int | None = None
    bytes: int
    """Size of the text that was counted."""
    owners: tuple[int | str, ...] = ()
    """The people and API keys that have sent the text; none for one of the command line, or of an earlier version."""


class CorpusOverview(Frozen):
    """A corpus in a list of corpora."""

    name: str
    bytes: int
    lines: int | None
    """null if nobody has counted them yet."""
    languages: tuple[str, ...]
    """Empty if they are not known."""
    is_ipa: bool | None
    """null if it is not known."""
    notes: tuple[str, ...] = ()
    """Of a folder: its splits, and what is left out; of a corpus that was just made of a table: how it was read."""


class CorpusStatistics(NamedTuple):
    lines: int
    characters: int
    """Without the ends of the lines."""
    distinct: int
    most_frequent: tuple[tuple[str, int], ...]
    """Characters with their numbers of occurrences."""


class CorpusList(Frozen):
    """Corpora by name."""

    corpora: tuple[CorpusOverview, ...]


class UploadedFile(Frozen):
    """A file of a corpus to upload."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]{1,200}$")]
    """Its name without folders; .jsonl, .csv and .tsv are tables with a field `text`, other files plain texts."""
    bytes: Annotated[int, Field(ge=0, le=2**53)]
    sha256: Annotated[Sha256, Names.UPLOAD] | None = None
    """SHA-256 of its bytes, which the server checks; null: the server computes it."""
    modified_at: Timestamp | None = None
    """Time of its last change; without a SHA-256, an upload continues if names, sizes and times are equal."""


class UploadRequest(Frozen):
    """A corpus to upload: a file, or the text files of a folder. Their bytes are sent in the order of `files`."""

    name: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """Name of the corpus in the list of corpora; null: requests find it by its hash only."""
    files: Annotated[tuple[UploadedFile, ...], Field(min_length=1, max_length=10_000)]
    language: LanguageCode | None = None
    """Code of the language, as kk."""
    is_ipa: bool | None = None
    """true for text in IPA, false for text in its usual spelling."""

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class CorpusText(Frozen):
    """A text to store as a corpus, in one request."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the corpus in the list of corpora."""
    text: Annotated[str, Field(min_length=1)]
    """The text, a sentence or a document in each line."""
    language: LanguageCode | None = None
    """Code of the language, as kk."""
    is_ipa: bool | None = None
    """true for text in IPA, false for text in its usual spelling."""


class UploadStatus(Frozen):
    """The state of an upload."""

    upload_id: Identifier
    bytes: int
    """Size of all files together."""
    offset: int
    """Number of bytes that the server has: the next portion begins there."""
    corpus: CorpusOverview | None = None
    """The corpus, whose name requests take; null until it is checked and stored."""
    sha256: Sha256 | None = None
    """SHA-256 of the stored corpus: that of its text, or of the list of its files."""


class UploadRecord(Frozen):
    """`uploads/<id>/record.json`: an upload, and the corpus that it has become."""

    schema_version: Literal[1] = 1
    owner: str | None
    """Name of the client's API key; null on a server without keys."""
    request: UploadRequest
    corpus: str | None = None
    """Name of the stored corpus."""
    sha256: Sha256 | None = None
    """Hash of the stored corpus."""
    notes: tuple[str, ...] = ()
    """How its table was read."""


class LanguageState(Frozen):
    """State of a language in a build: the documents read, and the part of the stage file that belongs to them."""

    request_sha256: Sha256
    """Hash of the options and tool versions, which must be equal for the build to continue."""
    documents: int = 0
    rejected_documents: int = 0
    stage_bytes: int = 0
    steps: tuple[BuildStep, ...] = ()
    ipa_check: IpaCheck | None = None
    is_complete: bool = False


class BuildProgress(Frozen):
    """Documents of a language that have been read, and the lines that were kept."""

    language: str
    documents: int
    rejected_documents: int
    lines: int
    characters: int


BuildSource = Literal["oscar", "culturax", "local"]


class BuildRequest(Frozen):
    """A build of corpora, as requested in Discord."""

    source: BuildSource
    languages: Annotated[tuple[str, ...], Field(min_length=1)]
    characters: Annotated[int, Field(ge=1)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.9
    keep: tuple[BuildFilter, ...] = ()
    """Filters that the build leaves out."""


class BuildStatus(JobStatus):
    """A build of corpora, its progress by language, and in the end its manifest or an error."""

    build_id: Identifier
    request: BuildRequest
    progress: tuple[BuildProgress, ...] = ()
    manifest: CorpusManifest | None = None


class BuildList(JobPage):
    """Builds of corpora, without their manifests."""

    builds: tuple[BuildStatus, ...]
