"""WordPiece (Schuster and Nakajima 2012), by the `tokenizers` library."""

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers.trainers import WordPieceTrainer

from trainer.contracts.tokenizers import DocumentMode, WordPieceTokenizerConfig, special_names
from trainer.tokenizers.base import NEWLINE, Text, Trained
from trainer.tokenizers.counting import check_room, count_characters
from trainer.tokenizers.subword import SPLIT, describe, train_library

CONTINUING = "##"


def train(config: WordPieceTokenizerConfig, texts: Sequence[Text], documents: DocumentMode) -> Trained:
    """Train word pieces. Raises INVALID_INPUT if the vocabulary is too small for all characters.

    Every character has a piece for the start of a word and one inside a word, so every known character has a token.
    """
    counts = count_characters(texts, documents)
    specials = special_names(config)
    continuing = [CONTINUING + character for character in counts.characters if character != NEWLINE]
    known: list[str | tokenizers.AddedToken] = [*specials.values(), *counts.characters, *continuing]
    check_room(config, len(counts.characters), len(known))
    # as special tokens they get fixed ids; the trainer would number them in another order each time
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=known,
        continuing_subword_prefix=CONTINUING,
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(models.WordPiece())
    train_library(learner, trainer, texts, documents)
    library = tokenizers.Tokenizer(
        models.WordPiece(learner.get_vocab(), unk_token=specials["unk"], continuing_subword_prefix=CONTINUING)
    )
    alone = pre_tokenizers.Split(Regex(f"[^{_ranges(counts.characters)}]"), "isolated")
    cuts: list[pre_tokenizers.PreTokenizer] = [alone, SPLIT]
    library.pre_tokenizer = pre_tokenizers.Sequence(cuts)  # otherwise one unknown character would make its word unknown
    joins: list[decoders.Decoder] = [decoders.Replace(Regex(f"^{CONTINUING}"), ""), decoders.Fuse()]
    library.decoder = decoders.Sequence(joins)
    return describe(library, config, counts, documents)


def _ranges(characters: Iterable[str]) -> str:
    """Return sorted characters as ranges for the brackets of a regular expression."""
    runs: list[list[int]] = []
    for code_point in map(ord, characters):
        if runs and code_point == runs[-1][1] + 1:
            runs[-1][1] = code_point
        else:
            runs.append([code_point, code_point])
    return "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in runs)
