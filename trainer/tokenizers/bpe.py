"""Byte-pair encoding of characters (Sennrich et al. 2016), by the `tokenizers` library."""

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models
from tokenizers.trainers import BpeTrainer

from trainer.contracts.tokenizers import BpeTokenizerConfig, DocumentMode, special_names
from trainer.tokenizers.base import Text, Trained
from trainer.tokenizers.counting import check_room, count_characters
from trainer.tokenizers.subword import describe, train_library


def train(config: BpeTokenizerConfig, texts: Sequence[Text], documents: DocumentMode) -> Trained:
    """Train byte-pair merges. Raises INVALID_INPUT if the vocabulary is too small for all characters."""
    counts = count_characters(texts, documents)
    specials = special_names(config)
    check_room(config.vocab_size, len(counts.characters), len(specials) + len(counts.characters))
    library = tokenizers.Tokenizer(models.BPE(unk_token=specials["unk"]))
    special_tokens: list[str | tokenizers.AddedToken] = [*specials.values()]
    trainer = BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special_tokens,
        show_progress=False,
    )
    train_library(library, trainer, texts, documents)
    library.decoder = decoders.Fuse()
    return describe(library, config, counts, documents)
