"""Byte-pair encoding of characters (Sennrich et al. 2016), by the `tokenizers` library."""

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models
from tokenizers.trainers import BpeTrainer

from trainer.contracts.tokenizers import BYTE_NAMES, BpeTokenizerConfig, DocumentMode, special_names
from trainer.tokenizers.base import Text, Trained
from trainer.tokenizers.counting import check_room, count_characters
from trainer.tokenizers.library import vocabulary_and_merges
from trainer.tokenizers.subword import SPLIT, describe, train_library


def train(config: BpeTokenizerConfig, texts: Sequence[Text], documents: DocumentMode) -> Trained:
    """Train byte-pair merges. Raises INVALID_INPUT if the vocabulary is too small for all characters and bytes."""
    counts = count_characters(texts, documents)
    specials = special_names(config)
    byte_names = BYTE_NAMES if config.byte_fallback else ()
    check_room(config, len(counts.characters), len(specials) + len(counts.characters))
    library = tokenizers.Tokenizer(models.BPE(unk_token=specials["unk"]))
    special_tokens: list[str | tokenizers.AddedToken] = [*specials.values()]
    trainer = BpeTrainer(
        vocab_size=config.vocab_size - len(byte_names),
        min_frequency=config.min_frequency,
        special_tokens=special_tokens,
        show_progress=False,
    )
    train_library(library, trainer, texts, documents)
    library.decoder = decoders.Fuse()
    if not byte_names:
        return describe(library, config, counts, documents)
    learned = vocabulary_and_merges(library.to_str())
    names = [*specials.values(), *byte_names, *list(learned.vocab)[len(specials) :]]
    numbered = {name: i for i, name in enumerate(names)}
    library = tokenizers.Tokenizer(models.BPE(numbered, learned.merges, unk_token=specials["unk"], byte_fallback=True))
    library.pre_tokenizer = SPLIT
    joins: list[decoders.Decoder] = [decoders.ByteFallback(), decoders.Fuse()]
    library.decoder = decoders.Sequence(joins)
    return describe(library, config, counts, documents)._replace(characters=None)
