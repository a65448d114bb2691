"""SentencePiece (Kudo and Richardson 2018), unigram or bpe, by its own package."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from io import BytesIO

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, set_random_generator_seed

from trainer.artifacts.tokenizer_files import RESERVED, sentencepiece_form
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import (
    SentencePieceTokenizerConfig,
    TokenizerManifest,
    special_names,
)
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
from trainer.tokenizers.counting import check_room, count_characters
from trainer.tokenizers.subword import SPLIT

SPACE = "\u2581"
_LINE_CHARACTERS = 1000
"""SentencePiece leaves out what is longer than 4192 bytes."""
_MOST_LINES = 2_000_000
"""A longer text is represented by so many of its lines, as they are all in memory."""
_THREADS = 8
"""Not the cores that are used: with another number of threads unigram's sums, and its tokens, are others."""


class SentencePieceTokenizer(StoredTokenizer):
    """Implements Tokenizer by the package; ids are 0.. for the specials, then as SentencePiece numbers its pieces.

    A space belongs to the word that it is before, and a line begins as if a space were before it, so that words are
    the same tokens there; tokens show it as U+2581. Unknown characters that stand together are one unknown token.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest) -> None:
        """Read the content of the file; raises TOKENIZER_LOAD_FAILED where it is no model with that vocabulary."""
        specials = numbered_names(manifest)
        super().__init__(manifest, content, specials)
        try:
            self._processor = SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            raise broken(manifest, "cannot be read") from None
        self._names = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        if len(self._names) != manifest.vocab_size or self._names[: len(specials)] != list(specials):
            raise broken(manifest, "does not hold the vocabulary of its manifest")
        self._texts = ["" for _ in specials] + [name.replace(SPACE, " ") for name in self._names[len(specials) :]]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode_as_ids(sentencepiece_form(normalized(text, self.normalization)))
        return ids

    def encode_documents(self, lines: Sequence[str]) -> Ids:
        ids: list[list[int]] = self._processor.encode_as_ids([sentencepiece_form(line) for line in lines])
        return documents_of(ids, self.special_ids, self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._texts[i] for i in ids if 0 <= i < len(self._texts)).removeprefix(" ")

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self._names[i] for i in ids]

    def spans(self, text: str) -> list[Span]:
        """Return the ranges; that of a line's first token leaves out the space that stands in no text."""
        given = sentencepiece_form(normalized(text, self.normalization))
        found: dict[str, list[Span]] = self._processor.encode_as_offset_mapping(given)
        return found["offsets"]


def train(config: SentencePieceTokenizerConfig, texts: Sequence[Text]) -> Trained:
    """Learn pieces from the texts' words; raises INVALID_INPUT where not all characters have room."""
    counts = count_characters(texts)
    characters = set(counts.characters) - set(RESERVED)
    names = special_names(config)
    specials = numbered(names)
    check_room(config.vocab_size, len(characters), len(specials) + len(characters | {" "}))
    masks = [name for role, name in names.items() if role == "mask"]
    model = BytesIO()
    set_random_generator_seed(0)
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_pieces(texts),
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            pretokenization_delimiter="\t",
            input_sentence_size=_MOST_LINES,
            num_threads=_THREADS,
            minloglevel=2,
            bos_id=specials[names["bos"]],
            bos_piece=names["bos"],
            eos_id=specials[names["eos"]],
            eos_piece=names["eos"],
            unk_id=specials[names["unk"]],
            unk_piece=names["unk"],
            pad_id=specials[names["pad"]],
            pad_piece=names["pad"],
            control_symbols=masks,
        )
    except RuntimeError:
        raise AppError(
            ErrorCode.TOKENIZER_TRAIN_FAILED,
            f"SentencePiece could not make {config.vocab_size:,} tokens of this text: give more text, or another"
            " `vocab_size`.",
        ) from None
    content = model.getvalue()
    return Trained(
        content=content,
        special_tokens=specials,
        vocab_size=SentencePieceProcessor(model_proto=content).get_piece_size(),
        characters=characters,
        corpora=counts.corpora,
        versions={"sentencepiece": version("sentencepiece"), "tokenizers": version("tokenizers")},
    )


def _pieces(texts: Iterable[Text]) -> Iterator[str]:
    """Yield the lines in pieces that are not too long, words apart as the other subword methods have them."""
    for text in texts:
        for line in text.lines:
            clean = line.translate(dict.fromkeys(map(ord, RESERVED), " "))
            for start in range(0, len(clean), _LINE_CHARACTERS):
                words: list[tuple[str, Span]] = SPLIT.pre_tokenize_str(clean[start : start + _LINE_CHARACTERS])
                yield "\t".join(word for word, _ in words)
