"""What a training would make of a text, before there is one: splits, vocabulary, a sample, a batch (KB-08)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trainer.contracts.base import Frozen
from trainer.contracts.runs import CorpusRef, EffectiveRequest, SplitSizes
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.data.corpus import Split, read_lines
from trainer.tokenizers.base import Tokenizer
from trainer.training.dataset import CorpusPaths, prepare
from trainer.training.device import resolve
from trainer.training.evaluation import line_lengths

_SAMPLE_TOKENS = 24


class CorpusCheck(Frozen):
    """What was found."""

    corpus: CorpusRef
    method: TokenizerMethod
    tokenizer_id: str | None
    """None: the tokenizer was made from the training split, as a run would."""
    vocab_size: int
    special_tokens: dict[str, int]
    splits: dict[Split, SplitSizes]
    unknown_share: float
    """Of the validation split's tokens, ends of lines not counted."""
    longest_line_chars: int
    """Of the corpus; longer lines than a row are cut, and their rest is the next row."""
    longest_line_tokens: int
    """Of the training split."""
    sample: str
    """The first row, decoded; each line in a line."""
    sample_tokens: tuple[str, ...]
    """The first tokens of that row, by their names."""
    inputs_shape: tuple[int, int]
    targets_shape: tuple[int, int]
    """(B, T) of the first batch."""
    batches: int
    """In an epoch."""


def check_corpus(effective: EffectiveRequest, paths: CorpusPaths, tokenizer: Tokenizer | None) -> CorpusCheck:
    """Prepare a text as the run would that is asked for, and keep nothing of it; raises what that raises."""
    compute = resolve(effective)
    with TemporaryDirectory() as scratch:
        made, corpus = prepare(effective, paths, Path(scratch), tokenizer)
        rows = corpus.rows("train", effective.max_seq_len)
        batch = rows.batch(np.arange(min(compute.batch_size, len(rows))))
        longest_line_tokens = int(np.max(line_lengths(corpus, "train")))
    held_out = corpus.sizes["validation"]
    first: list[int] = batch.inputs[0].tolist()
    return CorpusCheck(
        corpus=effective.corpus,
        method=made.manifest.method,
        tokenizer_id=effective.tokenizer_id,
        vocab_size=made.vocab_size,
        special_tokens=made.manifest.special_tokens,
        splits=corpus.sizes,
        unknown_share=(held_out.unknown_tokens or 0) / max(1, held_out.tokens - held_out.lines),
        longest_line_chars=max(map(len, read_lines(paths.corpus, made.normalization))),
        longest_line_tokens=longest_line_tokens,
        sample="\n".join(made.decode(line) for line in _lines(first, made.special_ids.eos)),
        sample_tokens=tuple(made.tokens(first[:_SAMPLE_TOKENS])),
        inputs_shape=(batch.inputs.shape[0], batch.inputs.shape[1]),
        targets_shape=(batch.targets.shape[0], batch.targets.shape[1]),
        batches=-(-len(rows) // compute.batch_size),
    )


def _lines(ids: list[int], end: int) -> list[list[int]]:
    """The ids of a row, cut where a line ends; without the empty piece before its first or after its last end."""
    lines: list[list[int]] = [[]]
    for i in ids:
        if i == end:
            lines.append([])
        else:
            lines[-1].append(i)
    return [line for line in lines if line]
