"""Inspection of a corpus as a run would prepare it: splits, vocabulary, a sample and a batch."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trainer.contracts.base import Frozen
from trainer.contracts.runs import HELD_OUT_SPLITS, CorpusRef, EffectiveRequest, Leaks, SplitSizes, leaks_of
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.contracts.wording import distinct
from trainer.data.corpus import Split, read_lines
from trainer.data.leaks import measure_leaks
from trainer.data.run_corpora import CorpusPaths, ReadText, split_paths
from trainer.tokenizers.base import Tokenizer
from trainer.training.dataset import prepare
from trainer.training.device import resolve
from trainer.training.evaluation import line_lengths

_SAMPLE_TOKENS = 24


class CorpusInspection(Frozen):
    """Result of the inspection of a corpus."""

    corpus: CorpusRef
    method: TokenizerMethod
    tokenizer_id: str | None
    """None if the tokenizer was trained on the training split."""
    vocab_size: int
    special_tokens: dict[str, int]
    splits: dict[Split, SplitSizes]
    unknown_share: float
    """Share of unknown tokens in the validation split, without [EOS]."""
    unknown_char_share: float
    """Share of unknown characters in the validation split; above 0.001, bits per character are too low to compare."""
    longest_line_chars: int
    longest_line_tokens: int
    """In the training split; a line longer than a row continues in the next row."""
    sample: str
    """The first row of the training split, decoded, one line per line."""
    sample_tokens: tuple[str, ...]
    """Names of the first tokens of the row."""
    inputs_shape: tuple[int, int]
    targets_shape: tuple[int, int]
    """Shape (B, T) of the first batch."""
    batches: int
    """Batches per epoch."""
    notes: tuple[str, ...] = ()
    """What the program has chosen or left out in the corpus, in sentences."""

    @property
    def leaks(self) -> Leaks:
        """Return the leaks of the held-out splits."""
        return leaks_of({split: self.splits.get(split) for split in HELD_OUT_SPLITS})


def inspect_corpus(
    effective: EffectiveRequest,
    paths: CorpusPaths,
    tokenizer: Tokenizer | None,
    notes: Sequence[str] = (),
    *,
    ancestors: ReadText | None = None,
) -> CorpusInspection:
    """Prepare a corpus as a run of the request would, and return a summary; `notes` are those on its files.

    `ancestors` is what the ancestors of a warm start have read. Raises the errors of `prepare`.
    """
    compute = resolve(effective)
    with TemporaryDirectory() as scratch:
        used, corpus = prepare(effective, paths, Path(scratch), tokenizer)
        if ancestors is not None:
            split = split_paths(effective, paths, Path(scratch))
            leaks = measure_leaks(split, effective.documents, effective.split_seed, ancestors)
            corpus = corpus.with_leaks(leaks)
        rows = corpus.rows("train", effective.max_seq_len)
        batch = rows.batch(np.arange(min(compute.batch_size, len(rows))))
        longest_line_tokens = int(np.max(line_lengths(corpus, "train")))
    held_out = corpus.sizes["validation"]
    first: list[int] = batch.inputs[0].tolist()
    lines = [[*ids] for is_end, ids in groupby(first, used.special_ids.line_end.__eq__) if not is_end]
    return CorpusInspection(
        corpus=effective.corpus,
        method=used.manifest.method,
        tokenizer_id=effective.tokenizer_id,
        vocab_size=used.vocab_size,
        special_tokens=used.manifest.special_tokens,
        splits=corpus.sizes,
        unknown_share=held_out.unknown_tokens
        / max(1, held_out.tokens - held_out.lines * used.special_ids.ends_per_line),
        unknown_char_share=held_out.unknown_char_share,
        longest_line_chars=max(map(len, read_lines(paths.corpus, used.normalization))),
        longest_line_tokens=longest_line_tokens,
        sample="\n".join(used.decode(line) for line in lines),
        sample_tokens=tuple(used.tokens(first[:_SAMPLE_TOKENS])),
        inputs_shape=(batch.inputs.shape[0], batch.inputs.shape[1]),
        targets_shape=(batch.targets.shape[0], batch.targets.shape[1]),
        batches=-(-len(rows) // compute.batch_size),
        notes=distinct((*notes, *corpus.notes)),
    )
