"""SentencePiece (Kudo and Richardson 2018), unigram or bpe, by its own package."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from io import BytesIO
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, set_random_generator_seed

from trainer.artifacts.tokenizer_files import RESERVED, sentencepiece_form
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.tokenizers import SentencePieceTokenizerConfig, TokenizerManifest, special_names
from trainer.data.normalization import normalized
from trainer.tokenizers.base import (
    NEWLINE,
    SPACE,
    Ids,
    Span,
    Text,
    Tokenizer,
    Trained,
    join_ids,
    load_error,
    special_token_ids,
)
from trainer.tokenizers.counting import CODE_POINTS, check_room, code_points, count_characters
from trainer.tokenizers.subword import SPLIT

_LINE_CHARACTERS = 1000
"""SentencePiece ignores lines longer than 4192 bytes."""
_MAX_LINES = 2_000_000
"""SentencePiece samples this number of lines from a longer text: it holds them in memory."""
_THREADS = 8
"""Fixed, because the tokens of the unigram method depend on the number of threads."""


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece tokenizer: the first ids are special tokens, then the pieces as SentencePiece numbers them.

    A space belongs to the word after it, and is added at the start of a line, so that the first word has the same
    tokens; tokens show it as U+2581. Adjacent unknown characters are one unknown token, or their bytes.
    """

    def __init__(self, content: bytes, manifest: TokenizerManifest, config: SentencePieceTokenizerConfig) -> None:
        """Raises TOKENIZER_LOAD_FAILED if the content of the file is no model with the manifest's vocabulary."""
        try:
            self._processor = SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            raise load_error(manifest, "cannot be read") from None
        names = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        if len(names) != manifest.vocab_size:
            raise load_error(manifest, "does not have the vocabulary of its manifest")
        super().__init__(
            content,
            manifest,
            special_token_ids(config),
            names,
            lambda name: name.replace(SPACE, " "),
            has_bytes=config.byte_fallback,
        )
        self._is_known = np.zeros(CODE_POINTS, dtype=np.bool_)
        self._is_known[[ord(text) for text in (NEWLINE, *self.texts) if len(text) == 1]] = True

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode_as_ids(self._form(normalized(text, self.normalization)))
        return ids

    def encode_documents(self, lines: str) -> Ids:
        if any(map(lines.__contains__, RESERVED)):
            lines = self._form(lines)
        documents = lines.encode().split(b"\n")  # the library encodes bytes faster than it converts many strings
        ids: list[list[int]] = self._processor.encode_as_ids(documents, add_bos=True, add_eos=True)
        return join_ids(ids, self.vocab_size)

    def unknown_characters(self, lines: str, ids: Ids) -> int:
        if self.byte_values:
            return lines.count(SPACE)
        if self.special_ids.unk not in ids:
            return 0
        is_known: NDArray[np.bool_] = np.take(self._is_known, code_points(lines))
        return len(is_known) - int(np.count_nonzero(is_known))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        pieces = super().pieces(ids)
        first = next((number for number, piece in enumerate(pieces) if piece), 0)
        return [
            *pieces[:first],
            *(piece.removeprefix(" ") for piece in pieces[first : first + 1]),
            *pieces[first + 1 :],
        ]

    def spans(self, text: str) -> list[Span]:
        """Return the range of each token in the normalized text, without the space added at the start."""
        encodable = self._form(normalized(text, self.normalization))
        mapping: dict[str, list[Span]] = self._processor.encode_as_offset_mapping(encodable)
        return mapping["offsets"]

    def _form(self, text: str) -> str:
        return sentencepiece_form(text, has_bytes=bool(self.byte_values))


def train(config: SentencePieceTokenizerConfig, texts: Sequence[Text]) -> Trained:
    """Train pieces. Raises INVALID_INPUT if the vocabulary is too small for all characters and bytes.

    Raises TOKENIZER_TRAIN_FAILED if SentencePiece cannot train this vocabulary size on the texts.
    """
    counts = count_characters(texts, "line")
    characters = set(counts.characters) - set(RESERVED)
    names = special_names(config)
    specials = special_token_ids(config)
    check_room(config, len(characters), len(specials) + len(characters | {" "}))
    masks = [name for role, name in names.items() if role == "mask"]
    model = BytesIO()
    set_random_generator_seed(0)
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_chunks(texts),
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=config.byte_fallback,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_by_unicode_script=False,
            split_by_number=False,
            pretokenization_delimiter="\t",
            input_sentence_size=_MAX_LINES,
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
            f"SentencePiece could not train {config.vocab_size:,} tokens on this text. Use more text or another"
            " `vocab_size`.",
        ) from None
    content = model.getvalue()
    return Trained(
        content=content,
        special_tokens=specials,
        vocab_size=SentencePieceProcessor(model_proto=content).get_piece_size(),
        characters=None if config.byte_fallback else characters,
        corpora=counts.corpora,
        versions={"sentencepiece": version("sentencepiece"), "tokenizers": version("tokenizers")},
    )


def _chunks(texts: Iterable[Text]) -> Iterator[str]:
    """Yield the lines in chunks that SentencePiece accepts, with tabs between words as SPLIT separates them."""
    for text in texts:
        for line in chain.from_iterable(block.split("\n") for block in text.lines()):
            clean = line.translate(dict.fromkeys(map(ord, RESERVED), " "))
            for start in range(0, len(clean), _LINE_CHARACTERS):
                words: list[tuple[str, Span]] = SPLIT.pre_tokenize_str(clean[start : start + _LINE_CHARACTERS])
                yield "\t".join(word for word, _ in words)
