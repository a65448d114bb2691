"""Byte-pair encoding of characters (Sennrich et al. 2016), by the `tokenizers` library."""

from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models
from tokenizers.trainers import BpeTrainer

from trainer.contracts.tokenizers import BpeTokenizerConfig, special_names
from trainer.tokenizers.base import Text, Trained
from trainer.tokenizers.counting import check_room, count_characters
from trainer.tokenizers.subword import train_library, trained


def train(config: BpeTokenizerConfig, texts: Sequence[Text]) -> Trained:
    """Merge the most frequent pairs of the texts' words; raises INVALID_INPUT where not all characters have room."""
    counts = count_characters(texts)
    specials = special_names(config)
    check_room(config.vocab_size, len(counts.characters), len(specials) + len(counts.characters))
    library = tokenizers.Tokenizer(models.BPE(unk_token=specials["unk"]))
    first: list[str | tokenizers.AddedToken] = [*specials.values()]
    trainer = BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=first,
        show_progress=False,
    )
    train_library(library, trainer, texts)
    library.decoder = decoders.Fuse()
    return trained(library, config, counts)
