"""One token per Unicode code point: a table from code points to ids, stored in the form of the `tokenizers` library."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from tokenizers import decoders, models, normalizers, pre_tokenizers

from trainer.contracts.base import FileRecord, now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import (
    MASK_NAMES,
    CharTokenizerConfig,
    Normalization,
    TokenizerCorpus,
    TokenizerManifest,
    TokenizerStats,
)
from trainer.data.corpus import SplitRule, blocks
from trainer.data.normalization import normalized
from trainer.files import read_regular, write_atomically
from trainer.tokenizers.base import BOS, EOS, SPECIAL_TOKENS, UNK, Ids, Span, Text, ids_type
from trainer.vocabulary import MANIFEST_FILE, TOKENIZER_FILE

_CODE_POINTS = 0x110000
_LINE_START, _LINE_END = "\n", "\0"
"""Neither occurs in a line, so they can stand for [BOS] and [EOS] while many lines are encoded at once."""


class CharTokenizer:
    """Implements Tokenizer; ids are 0..3 for the specials, 4 for [MASK] if asked, then the characters by code point."""

    def __init__(self, characters: Sequence[str], manifest: TokenizerManifest) -> None:
        self._manifest = manifest
        specials = list(manifest.special_tokens)
        self._names = [*specials, *characters]
        self._texts = ["" for _ in specials] + list(characters)
        self._table: Ids = np.full(_CODE_POINTS, UNK, dtype=ids_type(len(self._names)))
        self._table[[ord(c) for c in characters]] = np.arange(len(specials), len(self._names))
        self._document_table = self._table.copy()
        self._document_table[[ord(_LINE_START), ord(_LINE_END)]] = (BOS, EOS)

    @property
    def manifest(self) -> TokenizerManifest:
        return self._manifest

    @property
    def normalization(self) -> Normalization:
        return self._manifest.normalization

    @property
    def vocab_size(self) -> int:
        return len(self._names)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._table[_code_points(normalized(text, self.normalization))].tolist()
        return ids

    def encode_documents(self, lines: Sequence[str]) -> Ids:
        return self._document_table[_code_points("".join(f"{_LINE_START}{line}{_LINE_END}" for line in lines))]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[i] for i in ids if 0 <= i < len(self._texts))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._names[i] for i in ids]

    def spans(self, text: str) -> list[Span]:
        return [(i, i + 1) for i in range(len(normalized(text, self.normalization)))]

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and, when that is safe, the manifest that vouches for it."""
        folder.mkdir(parents=True, exist_ok=True)
        content = _as_library_json(self._names, len(self._manifest.special_tokens), self.normalization)
        write_atomically(folder / TOKENIZER_FILE, content)
        write_atomically(folder / MANIFEST_FILE, self._manifest.model_dump_json(indent=2).encode())


def train(
    config: CharTokenizerConfig,
    texts: Iterable[Text],
    holdout_lines: Iterable[str],
    *,
    rule: SplitRule,
    tokenizer_id: str | None,
) -> CharTokenizer:
    """Make the vocabulary from the texts' lines; the hold-out's lines are only counted against it."""
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    sources: list[TokenizerCorpus] = []
    for corpus, lines in texts:
        in_text, line_count, _ = _count(lines)
        counts += in_text
        chars = int(np.sum(in_text))
        sources.append(TokenizerCorpus(name=corpus.name, sha256=corpus.sha256, lines=line_count, chars=chars))
    held_out, held_out_lines, words = _count(holdout_lines)
    specials = SPECIAL_TOKENS | ({MASK_NAMES[0]: len(SPECIAL_TOKENS)} if config.mask_token else {})
    characters = _vocabulary(config, counts, len(specials))
    names = [*specials, *characters]
    content = _as_library_json(names, len(specials), config.normalization)
    described = " ".join(source.model_dump_json() for source in sources)
    identity = f"{config.model_dump_json()} {described} {rule} {sha256(content).hexdigest()}"
    manifest = TokenizerManifest(
        tokenizer_id=tokenizer_id or f"char-{sha256(identity.encode()).hexdigest()[:16]}",
        method="char",
        vocab_size=len(names),
        special_tokens=specials,
        normalization=config.normalization,
        corpus=tuple(sources),
        config=config,
        stats=_statistics(characters, held_out, held_out_lines, words),
        seed=rule.seed,
        holdout_fraction=rule.holdout_fraction,
        versions={"tokenizers": version("tokenizers"), "numpy": np.__version__},
        created_at=now(),
        files=(FileRecord(path=TOKENIZER_FILE, bytes=len(content), sha256=sha256(content).hexdigest()),),
    )
    return CharTokenizer(characters, manifest)


def load(folder: Path, manifest: TokenizerManifest) -> CharTokenizer:
    """Read a tokenizer that `save` wrote; raises TOKENIZER_LOAD_FAILED where a byte is not as its manifest says."""
    try:
        content = read_regular(folder / TOKENIZER_FILE)
        vocabulary = _LibraryFile.model_validate_json(content).model.vocab
    except (OSError, ValueError):
        raise _broken("cannot be read") from None
    names, specials = list(vocabulary), list(manifest.special_tokens)
    characters = names[len(specials) :]
    if [record.sha256 for record in manifest.files] != [sha256(content).hexdigest()]:
        raise _broken("is not the one that its manifest names")
    if (
        specials not in ([*SPECIAL_TOKENS], [*SPECIAL_TOKENS, MASK_NAMES[0]])
        or list(manifest.special_tokens.values()) != list(range(len(specials)))
        or list(vocabulary.values()) != list(range(manifest.vocab_size))
        or names[: len(specials)] != specials
        or any(len(c) != 1 for c in characters)
    ):
        raise _broken("does not hold a character vocabulary")
    return CharTokenizer(characters, manifest)


class _LibraryModel(BaseModel):
    model_config = ConfigDict(strict=True)
    vocab: dict[str, int]


class _LibraryFile(BaseModel):
    """The part of the `tokenizers` library's file that is read back."""

    model: _LibraryModel


def _count(lines: Iterable[str]) -> tuple[NDArray[np.int64], int, int]:
    """Count every code point, the lines and the words between white space."""
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    line_count = words = 0
    for block in blocks(lines):
        counts += np.bincount(_code_points("".join(block)), minlength=_CODE_POINTS)
        line_count += len(block)
        words += sum(len(line.split()) for line in block)
    return counts, line_count, words


def _vocabulary(config: CharTokenizerConfig, counts: NDArray[np.int64], specials: int) -> list[str]:
    """Return the characters that are kept, by code point; a cap keeps the most frequent, the lower one of equals."""
    kept = np.flatnonzero(counts >= config.min_frequency)
    if config.vocab_size is not None:
        room = max(0, config.vocab_size - specials)
        frequencies: NDArray[np.int64] = counts[kept]
        kept = np.sort(kept[np.argsort(-frequencies, kind="stable")[:room]])
    code_points: list[int] = kept.tolist()
    return [chr(c) for c in code_points]


def _statistics(characters: list[str], held_out: NDArray[np.int64], lines: int, words: int) -> TokenizerStats:
    known = np.zeros(_CODE_POINTS, dtype=np.bool_)
    known[[ord(c) for c in characters]] = True
    tokens = int(np.sum(held_out))
    distinct = held_out > 0
    coverage = int(np.sum(held_out, where=known)) / tokens
    return TokenizerStats(
        coverage=coverage,
        oov_rate=1 - coverage,
        token_count=tokens,
        char_coverage=np.count_nonzero(known & distinct) / np.count_nonzero(distinct),
        avg_tokens_per_char=1.0,
        avg_tokens_per_word=tokens / words,
        holdout_lines=lines,
    )


def _as_library_json(names: Sequence[str], special_count: int, normalization: Normalization) -> bytes:
    """The file from which `tokenizers.Tokenizer.from_file` makes a tokenizer with equal ids.

    Text that spells a special token stays text there when `encode_special_tokens` is set, as it always does here.
    """
    library = tokenizers.Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    nfc = normalizers.NFC()
    steps: list[normalizers.Normalizer] = [nfc, normalizers.Lowercase(), nfc] if normalization.lowercase else [nfc]
    library.normalizer = normalizers.Sequence(steps)
    library.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    library.decoder = decoders.Fuse()
    specials: list[str | tokenizers.AddedToken] = list(names[:special_count])
    library.add_special_tokens(specials)
    return library.to_str(pretty=False).encode()


def _code_points(text: str) -> NDArray[np.uint32]:
    # A lone surrogate is no character of any corpus: it becomes [UNK] instead of an error.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _broken(what: str) -> AppError:
    return AppError(ErrorCode.TOKENIZER_LOAD_FAILED, f"The tokenizer's file '{TOKENIZER_FILE}' {what}.")
