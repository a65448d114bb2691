"""Counts of the training text of a run, and their losses on its held-out splits: what its model has to beat.

N-grams of the tokens of the run are counted, and n-grams of characters, which are often better than those of subwords.
A run that started from another one knows the text of that one too, so its text is counted with it where it is here.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from math import fsum, inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.contracts.baselines import MAX_COUNTED_TOKENS
from trainer.contracts.models import NgramConfig
from trainer.contracts.runs import HELD_OUT_SPLITS, EffectiveRequest, HeldOutSplit, has_unknown_text
from trainer.contracts.tokenizers import CharTokenizerConfig
from trainer.data.corpus import Split, SplitCorpus
from trainer.data.run_corpora import CorpusPaths, ReadText, split_paths, split_rule
from trainer.ngrams.choose import MAX_ORDER, choose_ngram
from trainer.ngrams.kneser_ney import Floats, KneserNey
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Ids, Text, Tokenizer
from trainer.training.dataset import TokenizedCorpus


class CountedNgram(NamedTuple):
    """The best n-gram of a training text, with its losses on the held-out splits of a run."""

    order: int
    counted_tokens: int
    all_tokens: int
    has_ancestors: bool
    """True if the text of the ancestors is counted too."""
    nats: dict[HeldOutSplit, tuple[float, ...]]
    """Losses over groups of lines."""
    known_nats: dict[HeldOutSplit, float]
    """Losses of the tokens that are not unknown, in nats per token."""


class SplitCounts(NamedTuple):
    """The n-grams of a run: unigrams, those of its tokens, and those of characters on the splits that have them."""

    unigram: CountedNgram
    ngram: CountedNgram
    characters: CountedNgram | None
    ancestors: ReadText

    def stronger(self, split: HeldOutSplit) -> tuple[CountedNgram, tuple[float, ...]]:
        """Return the n-gram with the lower loss on a split, and its losses over the groups of lines."""
        ours, characters = self.ngram.nats[split], self.characters
        if characters is not None and fsum(characters.nats.get(split, (inf,))) < fsum(ours):
            return characters, characters.nats[split]
        return self.ngram, ours


def count_splits(
    corpus: TokenizedCorpus,
    tokenizer: Tokenizer,
    effective: EffectiveRequest,
    paths: CorpusPaths,
    scratch: Path,
    ancestors: ReadText,
) -> SplitCounts | None:
    """Count the training text of a run with that of its ancestors, and measure the n-grams on its held-out splits.

    `scratch` is the folder for temporary files. The order of an n-gram, and whether the text of the ancestors helps it,
    are chosen on the validation split. None for a masked model, whose loss is over masked tokens, and for one that
    counts unigrams. Longer n-grams that are a model themselves are compared with unigrams, and with characters. Five
    million characters take some seconds.
    """
    model = effective.model
    if effective.objective == "masked_lm" or (isinstance(model, NgramConfig) and model.max_order == 1):
        return None
    max_order = 1 if isinstance(model, NgramConfig) else MAX_ORDER
    has_characters = effective.tokenizer.method != "char"
    own = split_paths(effective, paths, scratch) if has_characters or ancestors.corpora else None
    text = None if own is None else _sample([own])
    parents = _sample(ancestors.corpora, () if text is None else set(text.lines.split("\n")))
    unigram = ngram = _best(corpus, tokenizer, 1, len(corpus.ids["train"]), None)
    if max_order > 1:
        ngram = _best(corpus, tokenizer, max_order, len(corpus.ids["train"]), parents)
    characters = None
    if own is not None and text is not None and has_characters:
        characters = _characters(corpus, effective, own, text, ancestors, parents)
    return SplitCounts(unigram, ngram, characters, ancestors)


class _Sample(NamedTuple):
    """Lines of training text from all over it, newlines between them, and their share of the characters."""

    lines: str
    share: float

    def encoded(self, tokenizer: Tokenizer) -> tuple[Ids, int]:
        """Return the ids of the lines, and about how many the complete text has."""
        ids = tokenizer.encode_documents(self.lines)
        return ids, round(len(ids) / self.share)


def _lines(corpora: Iterable[SplitCorpus], split: Split) -> Iterator[str]:
    for corpus in corpora:
        yield from chain.from_iterable(block.split("\n") for block in corpus.lines(split))


def _sample(corpora: Sequence[SplitCorpus], known: Collection[str] = ()) -> _Sample | None:
    """Return the lines of training splits but the known ones; None if there is none.

    Of long text there are lines with about MAX_COUNTED_TOKENS characters, from all over it.
    """

    def new_lines() -> Iterator[str]:
        return (line for line in _lines(corpora, "train") if line not in known)

    total = sum(len(line) + 1 for line in new_lines())
    kept: list[str] = []
    read = size = 0
    for line in new_lines():
        if size * total <= read * MAX_COUNTED_TOKENS:
            kept.append(line)
            size += len(line) + 1
        read += len(line) + 1
    return _Sample("\n".join(kept), size / total) if kept else None


def _characters(
    corpus: TokenizedCorpus,
    effective: EffectiveRequest,
    own: SplitCorpus,
    text: _Sample,
    ancestors: ReadText,
    parents: _Sample | None,
) -> CountedNgram:
    """Return the best n-gram of characters, with its losses on the splits that have hardly any unknown character."""
    config = CharTokenizerConfig(normalization=effective.tokenizer.normalization)
    texts = [Text(effective.corpus, partial(one.lines, "train")) for one in (own, *ancestors.corpora)]
    rule, documents = split_rule(effective), effective.documents
    tokenizer = train_tokenizer(config, texts, own.lines("validation"), rule=rule, documents=documents)
    train, total = text.encoded(tokenizer)
    ids: dict[Split, Ids] = {"train": train}
    for split in HELD_OUT_SPLITS:
        if split in corpus.ids:
            ids[split] = np.concatenate([tokenizer.encode_documents(block) for block in own.lines(split)])
    found = _best(TokenizedCorpus(ids, {}, {}, tokenizer.special_ids, {}), tokenizer, MAX_ORDER, total, parents)
    for held_out in list(found.nats):
        sizes = corpus.sizes[held_out]
        is_unknown: NDArray[np.bool_] = np.equal(ids[held_out], tokenizer.special_ids.unk)
        unknown = int(np.count_nonzero(is_unknown)) / sizes.chars
        if has_unknown_text(unknown) or has_unknown_text(sizes.unknown_char_share):
            del found.nats[held_out]
    return found


def _best(
    corpus: TokenizedCorpus, tokenizer: Tokenizer, max_order: int, total: int, parents: _Sample | None
) -> CountedNgram:
    """Return the n-gram with the lower validation loss: of the training split, or of the text of the ancestors too.

    `total` is the number of tokens in the training split, from which `corpus` may have a sample.
    """
    train, special_ids = corpus.ids["train"], corpus.special_ids
    texts = [(train, total)]
    if parents is not None:
        more, its_total = parents.encoded(tokenizer)
        texts.append((np.concatenate([train, more]), total + its_total))
    chosen = [
        choose_ngram(
            text,
            corpus.ids["validation"],
            vocab_size=tokenizer.vocab_size,
            special_ids=special_ids,
            max_order=max_order,
            max_tokens=MAX_COUNTED_TOKENS,
        )
        for text, _ in texts
    ]
    losses = [min(one.validation_losses_nats.values(), default=inf) for one in chosen]
    best = losses.index(min(losses))
    model = chosen[best].model
    nats, known_nats = dict[HeldOutSplit, tuple[float, ...]](), dict[HeldOutSplit, float]()
    for split in HELD_OUT_SPLITS:
        if split in corpus.ids:
            nats[split], known_nats[split] = _losses(model, corpus, split)
    return CountedNgram(model.order, chosen[best].counted_tokens, texts[best][1], best > 0, nats, known_nats)


def _losses(model: KneserNey, corpus: TokenizedCorpus, split: HeldOutSplit) -> tuple[tuple[float, ...], float]:
    """Return the losses over groups of lines, and the mean loss of the tokens that are not unknown."""
    ids, special_ids = corpus.ids[split], corpus.special_ids
    line_start = special_ids.line_start
    positions: NDArray[np.int64] = (
        np.arange(len(ids)) if line_start is None else np.flatnonzero(np.not_equal(ids, line_start))
    )
    groups = np.searchsorted(corpus.documents(split).group_ends(), positions)
    losses: Floats = model.losses_nats(ids)
    is_known: NDArray[np.bool_] = np.not_equal(ids[positions], special_ids.unk)
    known: Floats = losses[is_known]
    of_groups: list[float] = np.bincount(groups, losses).tolist()
    known_nats: list[float] = known.tolist()
    return tuple(of_groups), fsum(known_nats) / max(1, len(known_nats))
