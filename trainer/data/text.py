"""Hashes, checks and reads the files of a corpus, a few MiB at a time; imports no numpy, because the bot reads too."""

import math
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from trainer.config.validation import decoded, format_problem
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import DocumentMode

SUFFIXES = {".txt", ".text"}
CONVERTED_SUFFIXES = (".jsonl", ".tsv", ".csv", ".cha")
"""Endings of files that are made plain texts: of tables the field `text`, of transcripts in CHAT the main lines."""
_ABOUT = re.compile(r"(readme|licen[cs]es?|notices?|citations?|copying)([\W_\d].*)?", re.IGNORECASE)
"""Names of files that say what a folder is, and are no text of it."""
ARCHIVE_SUFFIXES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar", ".zst")
START_BYTES = 4096
"""Bytes of a file by which its format is judged."""
_MIN_TABS, _MIN_TABLE_LINES = 2, 3
"""Fewest tabs in each line, and fewest lines, of what is taken for a table."""
_MARKUP = {
    "XML": re.compile(
        r"\s*<(\?xml\b|!doctype\b|!--|html\b|[a-z][\w.:-]*(\s[^<>\n]*=[^<>]*>|>[ \t]*\n\s*<[a-z]))", re.IGNORECASE
    ),
    "LaTeX": re.compile(r"(\s*%.*\n)*\s*\\(documentclass|usepackage|begin)\b.*[{\[]"),
    "a CHAT transcript": re.compile(
        r"@(UTF8|Begin|Font:.*|PID:.*|Window:.*)\s*$|(\*\w{1,7}:\t.*\n)+%\w+:\t", re.MULTILINE
    ),
    "a TextGrid of Praat": re.compile(r'\s*(File type = )?"ooTextFile'),
    "WebVTT": re.compile(r"WEBVTT\b"),
    "SubRip": re.compile(r"\s*\d+\s*\n[\d:,]+ --> "),
    "text with markers of fields": re.compile(r"(\\[a-z_]\w*([ \t].*)?\s*\n\s*){3}"),
    "CoNLL-U": re.compile(r"# (global\.columns|newdoc|newpar|sent_id|text)\b.*\n(#.*\n)*[^\t\n]*\t"),
    "JSON": re.compile(r'\s*(\[\s*)?\{\s*"(\w|[ .-])+"\s*:'),
}
"""The formats with tags, codes or columns between the texts, by their first lines."""
MAX_LINE_BYTES = 4 << 20
"""Maximum length of a line."""
_CHUNK_BYTES = 1 << 18
_SAMPLE_CHUNKS, _SAMPLE_CHUNK_BYTES = 8, 32 << 10
BOM = "\ufeff"
_MAX_LABEL = 64
_MAX_FILE_NAME = 40  # in UTF-8 not longer than file systems allow
_MAX_NAME = 48
"""Shorter than the hash by which an attached text is stored; in UTF-8 not longer than file systems allow."""
_FILE_ENDINGS = re.compile(r"^[-_.]+|([-_.]|\.txt|\.json|_manifest)+$", re.IGNORECASE)
"""Signs and endings of files that no name of a corpus begins or ends with."""
_BLANK_LINE = re.compile(r"\n\s*(?:\n|\Z)")
"""A blank line after another line."""
_LINE_END = re.compile(rb"\r\n|\r|\n")


class TextBlock(NamedTuple):
    """Lines separated by newlines, as text and in UTF-8."""

    text: str
    utf8: bytes


class TextSample(NamedTuple):
    """A sample of a corpus."""

    text: str
    n_bytes: int
    corpus_bytes: int


def text_files(path: Path) -> list[Path]:
    """Return the text files of a corpus, in a folder sorted by name, without those about the folder, as README.txt.

    Raises DATA_NOT_FOUND for a folder without text files, and INVALID_INPUT for a pipe or a device.
    """
    files = [path]
    if path.is_dir():
        with reading(path):
            texts = (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.is_dir())
            files = sorted(file for file in texts if not is_about(file.name))
    if not files:
        raise AppError(
            ErrorCode.DATA_NOT_FOUND, f"The corpus folder '{shown_name(path.name)}' has no .txt or .text file."
        )
    for file in files:
        if file.exists() and not file.is_file():
            raise AppError(
                ErrorCode.INVALID_INPUT,
                f"'{shown_name(file.name)}' is a pipe or a device, but a corpus is read more than once. Write its text"
                " to a file.",
            )
    return files


def sample_text(corpus: Path) -> TextSample:
    """Read chunks spread evenly over a corpus, or all of a short one."""
    files, chunks = text_files(corpus), list[bytes]()
    for file in files[:: math.ceil(len(files) / _SAMPLE_CHUNKS)]:
        size = _size(file)
        with _opened(file) as data:
            for start in range(0, size, max(_SAMPLE_CHUNK_BYTES, math.ceil(size / _SAMPLE_CHUNKS))):
                data.seek(start)
                chunks.append(data.read(_SAMPLE_CHUNK_BYTES))
    raw = b"".join(chunks)
    return TextSample(raw.decode(errors="ignore"), len(raw), sum(map(_size, files)))


def corpus_bytes(corpus: Path) -> int:
    """Return the size of a corpus; raises DATA_NOT_FOUND as `text_files` does, and for a file that was just deleted."""
    return sum(map(_size, text_files(corpus)))


def count_kinds(units: Sequence[str], growth: float) -> float:
    """Estimate the distinct units of a text `growth` times as long, which grow with a power of it (Heaps' law)."""
    kinds, kinds_in_half = len(set(units)), len(set(units[: len(units) // 2]))
    power = math.log2(kinds / kinds_in_half) if kinds_in_half else 1.0
    return kinds * math.pow(growth, min(1.0, power))


def is_about(name: str) -> bool:
    """Return True for the name of a file that says what its folder is: README, LICENSE, NOTICE, CITATION."""
    return _ABOUT.fullmatch(name) is not None


def check_text_name(name: str) -> None:
    """Raise UNSUPPORTED_MEDIA_TYPE for a name whose ending is none of a text, a table or a transcript.

    A name without an ending is that of a text.
    """
    suffix = PurePosixPath(name).suffix.lower()
    endings = " or ".join((".txt", *CONVERTED_SUFFIXES))
    if suffix in ARCHIVE_SUFFIXES:
        message = f"'{shown_name(name)}' is an archive. Unpack it and give a file whose name ends in {endings}."
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    if suffix not in ("", *SUFFIXES, *CONVERTED_SUFFIXES):
        message = (
            f"'{shown_name(name)}' is not read: a plain text has a name that ends in .txt, a table or a transcript one"
            f" that ends in {' or '.join(CONVERTED_SUFFIXES)}."
        )
        raise AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)


def check_plain(file: Path) -> None:
    """Raise INVALID_INPUT for a file of texts with tags, codes or columns between them, by its first lines."""
    if not file.is_file():
        return  # the first bytes of a pipe can be read once
    with _opened(file) as stream:
        check_start(stream.read(START_BYTES), file.name)


def check_start(start: bytes, name: str) -> None:
    """Raise INVALID_INPUT for the first bytes of a file, as `check_plain` does."""
    text = with_newlines(start.decode("utf-8-sig", errors="replace")).lstrip("\n")
    found = next((kind for kind, pattern in _MARKUP.items() if pattern.match(text)), None)
    complete = text.rpartition("\n")[0] if len(start) >= START_BYTES else text
    lines = [line for line in complete.split("\n") if line.strip() and not line.startswith("#")]
    tabs = {line.count("\t") for line in lines}
    if found is None and len(lines) >= _MIN_TABLE_LINES and len(tabs) == 1 and min(tabs) >= _MIN_TABS:
        found = f"a table of {1 + min(tabs)} columns"
    if found is not None:
        message = f"'{shown_name(name)}' is {found}, not a plain text: save its texts alone, a text per line."
        raise AppError(ErrorCode.INVALID_INPUT, message)


def is_converted(path: Path) -> bool:
    return path.suffix.lower() in CONVERTED_SUFFIXES and not path.is_dir()


def corpus_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the `sha256sum` listing of a folder, sorted by name."""
    if not path.is_dir():
        return _file_sha256(path)
    listing = (_file_sha256(file).encode() + b"  " + os.fsencode(file.name) + b"\n" for file in text_files(path))
    return sha256(b"".join(listing)).hexdigest()


def line_blocks(path: Path, documents: DocumentMode = "line") -> Iterator[list[str]]:
    """Yield the lines of a corpus, many at a time; blank lines in a stream only."""
    return (block.text.split("\n") for block in text_blocks(path, documents))


def count_lines(path: Path) -> int:
    """Return the number of lines of a corpus that are not blank."""
    return sum(block.utf8.count(b"\n") + 1 for block in text_blocks(path))


def text_blocks(path: Path, documents: DocumentMode = "line") -> Iterator[TextBlock]:
    """Yield the lines of a corpus in blocks of about 256 KiB; blank lines in a stream only.

    A block of a stream without text is one blank line.
    """
    for file in text_files(path):
        with _opened(file) as stream:
            yield from stream_blocks(stream, file.name, documents)


def stream_blocks(stream: BinaryIO, name: str, documents: DocumentMode = "line") -> Iterator[TextBlock]:
    """Yield the lines of a UTF-8 text, as `text_blocks` does.

    Lines end at \n, \r\n or \r. Raises INVALID_INPUT with the position of a byte that is not UTF-8 or NUL, or with
    the number of a line of more than 4 MiB.
    """
    rest = b""
    position = 0  # of the first byte of `rest`, from 0
    at_end = False
    while not at_end:
        chunk = stream.read(_CHUNK_BYTES)
        at_end = not chunk
        rest += chunk
        # the newline of a last \r may be the first byte of the next chunk
        end = len(rest) if at_end else (rest.rfind(b"\n") + 1 or rest.rfind(b"\r", 0, -1) + 1)
        _check(rest, shown_name(name), position, stream)
        utf8 = rest[:end].removesuffix(b"\n").removesuffix(b"\r")
        text = decoded(utf8, f"'{shown_name(name)}'", position=position)
        lines = with_newlines(text.removeprefix(BOM) if position == 0 else text)
        if documents == "line":
            lines = _without_blank_lines(lines)
        if lines or (end and documents == "stream"):
            yield TextBlock(lines, utf8 if lines is text else lines.encode())
        position, rest = position + end, rest[end:]


def with_newlines(text: str) -> str:
    """Return the text with \\n between its lines; the same object if nothing changes."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def shown_name(name: str) -> str:
    """Return a file name for messages: without folders and control characters, at most 64 characters."""
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return "".join(c for c in last if unicodedata.category(c)[0] != "C")[:64]


def clean_label(name: str) -> str | None:
    """Reduce a file's name to letters with their marks, digits, spaces, - and .; return None if nothing is left."""
    plain = "".join(
        sign if sign.isalnum() or sign in "-." or unicodedata.category(sign).startswith("M") else " "
        for sign in unicodedata.normalize("NFC", name)
    )
    return " ".join(plain.split())[:_MAX_LABEL].strip() or None


def clean_file_name(name: str) -> str:
    """Return the name of a file with a clean label before its ending in small letters."""
    path = PurePosixPath(name)
    return f"{(clean_label(path.stem) or 'file')[:_MAX_FILE_NAME]}{path.suffix.lower()}"


def clean_corpus_name(name: str) -> str | None:
    """Reduce the name of a new corpus to letters, digits, _, - and .; return None if nothing is left.

    The endings of its files are no part of it, so that no corpus has the name of another one's file.
    """
    name = (clean_label(name) or "").replace(" ", "_")
    return _FILE_ENDINGS.sub("", _FILE_ENDINGS.sub("", name)[:_MAX_NAME]) or None


def plain_words(text: str) -> list[str]:
    """Return the words between white space in folded case, without punctuation and symbols at their ends.

    Words of nothing but such signs are empty.
    """
    plain = folded(text)
    signs = "".join(char for char in set(plain) if unicodedata.category(char)[0] in "PS")
    return [word.strip(signs) for word in plain.split()]


def folded(text: str) -> str:
    """Return a text in folded case, in the composed form (NFC)."""
    return unicodedata.normalize("NFC", text.casefold())


def _without_blank_lines(text: str) -> str:
    """Return lines without the blank ones; the same object if nothing changes."""
    if text[:1].isspace() or _BLANK_LINE.search(text):
        text = "\n".join([line for line in text.split("\n") if line.strip()])
    return text


def _check(raw: bytes, name: str, position: int, stream: BinaryIO) -> None:
    """Refuse another format and a line that is too long; `position` is that of the first byte in the stream."""
    if not position and (problem := format_problem(raw, f"'{name}'")) is not None:
        raise AppError(ErrorCode.INVALID_INPUT, problem)
    if len(raw) > MAX_LINE_BYTES and not _LINE_END.search(raw, 0, MAX_LINE_BYTES + 1):
        raise AppError(
            ErrorCode.INVALID_INPUT,
            f"Line {1 + _count_newlines(stream, position):,} of '{name}' has more than 4 MiB: give a text with shorter"
            " lines.",
        )


def _count_newlines(stream: BinaryIO, end: int) -> int:
    """Return the number of newlines before a position of a stream."""
    stream.seek(0)
    newlines, before = 0, b""
    while end:
        chunk = stream.read(min(end, _CHUNK_BYTES))
        newlines += sum(1 for _ in _LINE_END.finditer(chunk))
        newlines -= before.endswith(b"\r") and chunk.startswith(b"\n")
        before, end = chunk, end - len(chunk)
    return newlines


def _opened(file: Path) -> BufferedReader:
    with reading(file):
        return file.open("rb")


def _size(file: Path) -> int:
    with reading(file):
        return file.stat().st_size


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Raise DATA_NOT_FOUND for a file or folder of a corpus that cannot be read."""
    try:
        yield
    except OSError:
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"The corpus file '{shown_name(file.name)}' cannot be read.") from None


def _file_sha256(file: Path) -> str:
    with _opened(file) as stream:
        return file_digest(stream, "sha256").hexdigest()
