"""What the subword methods of the `tokenizers` library share: how a text falls into words, and the tokenizer itself."""

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import chain

import tokenizers
from tokenizers import Regex, pre_tokenizers, processors
from tokenizers.trainers import Trainer

from trainer.contracts.tokenizers import (
    BpeTokenizerConfig,
    TokenizerManifest,
    WordPieceTokenizerConfig,
    special_names,
)
from trainer.data.corpus import blocks
from trainer.data.normalization import normalized
from trainer.tokenizers.base import (
    Ids,
    Span,
    StoredTokenizer,
    Text,
    Trained,
    broken,
    documents_of,
    numbered,
    numbered_names,
)
from trainer.tokenizers.counting import CharacterCounts
from trainer.tokenizers.library import content_of, normalizer_of, vocabulary_of

SPLIT = pre_tokenizers.Split(
    Regex(
        r" ?#"
        r"| ?(?:[\p{L}\p{M}]|(?<=\p{L})['\u2019](?=\p{L})){1,60}"
        r"| ?\p{N}{1,60}"
        r"| ?[^\s\p{L}\p{M}\p{N}#]{1,60}"
        r"|\s"
    ),
    "isolated",
)
"""Words, numbers and punctuation, each with the space before it; no token reaches from one into the next.

So no token is spelled like a special one, none but those that go on with a word begins with ##, and however long a
word is, its tokens are found in no time.
"""
_SURROGATES = re.compile("[\ud800-\udfff]")


class SubwordTokenizer(StoredTokenizer):
    """Implements Tokenizer by the library; ids are 0.. for the specials, then characters, then what was merged.

    A space belongs to the word that it is before; a second one, and any other white space, is a token of its own.
    Tokens are made of whole characters (bytes would know every text, but cut characters, which then have no span),
    and an unknown character is one unknown token.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest, continuing: str = "") -> None:
        """Read the content of the file, where tokens that go on with a word have a prefix; raises as `load` does."""
        names = vocabulary_of(content, manifest)
        specials = numbered_names(manifest)
        super().__init__(manifest, content, specials)
        if names[: len(specials)] != list(specials):
            raise broken(manifest, "does not begin with the special tokens")
        self._names = names
        self._texts = ["" for _ in specials] + [name.removeprefix(continuing) for name in names[len(specials) :]]
        self._library = tokenizers.Tokenizer.from_str(content.decode())
        self._library.normalizer = None  # what comes here is normalized, and so are the spans
        self._library.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        return self._encoding(text).ids

    def encode_documents(self, lines: Sequence[str]) -> Ids:
        encodings = self._library.encode_batch_fast(lines, add_special_tokens=False)
        return documents_of((encoding.ids for encoding in encodings), self.special_ids, self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[i] for i in ids if 0 <= i < len(self._texts))

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._names[i] for i in ids]

    def spans(self, text: str) -> list[Span]:
        return self._encoding(text).offsets

    def _encoding(self, text: str) -> tokenizers.Encoding:
        # A lone surrogate is no character of any corpus, and neither is NUL, which the library can be asked for.
        encodable = _SURROGATES.sub("\0", normalized(text, self.normalization))
        return self._library.encode(encodable, add_special_tokens=False)


def train_library(library: tokenizers.Tokenizer, trainer: Trainer, texts: Iterable[Text]) -> None:
    """Let the library read the lines, many at a time, and learn tokens from them with all cores."""
    library.pre_tokenizer = SPLIT
    lines: Iterator[list[str]] = chain.from_iterable(blocks(text.lines) for text in texts)
    library.train_from_iterator(lines, trainer)


def trained(
    library: tokenizers.Tokenizer, config: BpeTokenizerConfig | WordPieceTokenizerConfig, counts: CharacterCounts
) -> Trained:
    """Complete a library's tokenizer so that others can use its file, and describe it."""
    names = special_names(config)
    specials = numbered(names)
    begin, end = names["bos"], names["eos"]
    library.normalizer = normalizer_of(config.normalization)
    ids = [(name, specials[name]) for name in (begin, end)]
    library.post_processor = processors.TemplateProcessing(f"{begin} $A {end}", f"{begin} $A {end} $B:1 {end}:1", ids)
    return Trained(
        content=content_of(library, list(specials)),
        special_tokens=specials,
        vocab_size=library.get_vocab_size(),
        characters=set(counts.characters),
        corpora=counts.corpora,
        versions={"tokenizers": version("tokenizers")},
    )
