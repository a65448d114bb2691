"""Texts by name: the data root's own, those shipped with the program, and stored attachments (DEC D06)."""

import asyncio
import codecs
import unicodedata
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.contracts.settings import Settings
from trainer.files import write_atomically

BUNDLED = Path(__file__).resolve().parents[1] / "corpora"
_CHUNK_BYTES = 1 << 20


class CorpusStore:
    """Finds texts by name and keeps copies of texts that were handed in, by their content."""

    def __init__(self, settings: Settings) -> None:
        self._corpora = settings.app.data_root / "corpus"
        self._stored = settings.app.artifacts_root / "corpora"
        self._corpus_bytes = settings.limits.corpus_bytes
        self._attachment_bytes = settings.limits.attachment_bytes
        self._offered: dict[str, Path] = {}

    def has(self, name: str) -> bool:
        try:
            self.find(name)
        except AppError:
            return False
        return True

    def find(self, name: str) -> Path:
        """The file of a corpus name; raises INVALID_INPUT for a name that leads out, DATA_NOT_FOUND for none."""
        if name in self._offered:
            return self._offered[name]
        for folder in (self._corpora, BUNDLED, self._stored):
            path = folder / name
            for candidate in (path, path.with_name(f"{path.name}.txt")) if path.name else ():
                if not candidate.resolve().is_relative_to(folder.resolve()):
                    raise AppError(
                        ErrorCode.INVALID_INPUT,
                        "`corpus` must be a name inside the corpus folder: no absolute path and no `..`.",
                    )
                if candidate.is_file():
                    return candidate
        raise AppError(
            ErrorCode.DATA_NOT_FOUND,
            f"There is no corpus '{_shown(name)}'; {self._known()}.",
        )

    async def describe(self, name: str, *, minimum_lines: int = 1) -> CorpusRef:
        """A corpus by name and content, checked whole: strict UTF-8, not too large, lines enough to split."""
        path = self.find(name)
        facts = await asyncio.to_thread(check_text, path, self._corpus_bytes)
        _require_lines(facts, minimum_lines)
        return CorpusRef(name=name, sha256=facts.sha256, bytes=facts.bytes)

    async def store_attachment(self, name: str, data: bytes, *, minimum_lines: int = 1) -> str:
        """Keep a text that came through the chat; `name` is shown in errors only. Returns its corpus name."""
        if len(data) > self._attachment_bytes:
            raise AppError(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"'{_shown(name)}' has {len(data):,} bytes; at most {self._attachment_bytes:,} are taken here.",
            )
        facts = TextCheck(name)
        facts.add(data)
        text = facts.finish()
        _require_lines(text, minimum_lines)
        await asyncio.to_thread(self._keep, text.sha256, BytesIO(data))
        return text.sha256

    async def offer(self, path: Path) -> str:
        """Take a file of this machine as a corpus for now, changing nothing; returns its corpus name."""
        facts = await asyncio.to_thread(check_text, path, self._corpus_bytes)
        self._offered[facts.sha256] = path
        return facts.sha256

    async def keep_offered(self) -> None:
        """Store copies of the files that were offered, by their content."""
        for name, path in self._offered.items():
            with path.open("rb") as file:
                await asyncio.to_thread(self._keep, name, file)

    def _keep(self, name: str, data: BinaryIO) -> None:
        self._stored.mkdir(parents=True, exist_ok=True)
        if not (self._stored / name).exists():
            write_atomically(self._stored / name, data)

    def _known(self) -> str:
        names = sorted({path.stem for folder in (self._corpora, BUNDLED) for path in folder.glob("*.txt")})
        return f"known are {', '.join(names[:20])}" if names else "none has been added yet"


class TextFacts(NamedTuple):
    sha256: str
    bytes: int
    lines: int


class TextCheck:
    """Reads a text in pieces and says what is wrong with it; only the name of its file appears in what it says."""

    def __init__(self, name: str) -> None:
        self._name = _shown(name)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._digest = sha256()
        self._bytes = 0
        self._lines = 0
        self._line_has_text = False

    def add(self, data: bytes) -> None:
        """Take the next piece; raises INVALID_INPUT with the position of the first byte that is no text."""
        pending = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise self._not_utf8(self._bytes - pending + error.start) from None
        if "\0" in text:
            position = self._bytes + data.index(b"\0")
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"'{self._name}' is not a text file: byte {position:,} is NUL. Give a plain text in UTF-8.",
            )
        self._digest.update(data)
        self._bytes += len(data)
        first, *others = text.split("\n")
        self._line_has_text = self._line_has_text or bool(first.strip())
        for line in others:
            self._lines += self._line_has_text
            self._line_has_text = bool(line.strip())

    def finish(self) -> TextFacts:
        """End the text; raises CORPUS_EMPTY for one that holds no line with a character."""
        pending = len(self._decoder.getstate()[0])
        if pending:
            raise self._not_utf8(self._bytes - pending)
        lines = self._lines + self._line_has_text
        if lines == 0:
            raise AppError(ErrorCode.CORPUS_EMPTY, f"'{self._name}' is empty: it needs lines of text to learn from.")
        return TextFacts(sha256=self._digest.hexdigest(), bytes=self._bytes, lines=lines)

    def _not_utf8(self, position: int) -> AppError:
        return AppError(
            ErrorCode.INVALID_INPUT,
            f"'{self._name}' is not UTF-8: byte {position:,} cannot be decoded. Save the text as UTF-8.",
        )


def check_text(path: Path, limit_bytes: int) -> TextFacts:
    """Read a text file through and return what it is; raises AppError where it is no text to train on."""
    size = path.stat().st_size
    if size > limit_bytes:
        raise AppError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"'{_shown(path.name)}' has {size:,} bytes; at most {limit_bytes:,} are taken (LIMITS__CORPUS_BYTES).",
        )
    check = TextCheck(path.name)
    with path.open("rb") as file:
        while data := file.read(_CHUNK_BYTES):
            check.add(data)
    return check.finish()


def _require_lines(facts: TextFacts, minimum: int) -> None:
    if facts.lines < minimum:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"The corpus has {facts.lines} line(s) with text; it needs at least {minimum}:"
            " lines to train on and lines held out.",
        )


def _shown(name: str) -> str:
    """A name as people may see it: no folders, no control characters, not long."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in last if unicodedata.category(c)[0] != "C")[:64]
