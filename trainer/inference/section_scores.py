"""Scores the texts of an experiment with a finished run: a loss for every token of every section."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.experiments import ExperimentDirectory, encodings_of, losses_path
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import Encoding
from trainer.data.normalization import normalized
from trainer.experiments.sections import TextLosses
from trainer.experiments.segments import SEGMENTS, Assimilator
from trainer.inference.scoring import sequence_surprisals
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer

_BATCH_TOKENS = 1 << 17


def score_experiment_texts(
    model: LanguageModel, tokenizer: Tokenizer, run: Path, experiment: ExperimentDirectory
) -> int:
    """Write the losses of all texts of an experiment, in the encodings that its modes need; return their number.

    Losses that the run's folder has already are not computed again. Raises MODEL_INCOMPATIBLE for a run that
    normalizes text differently.
    """
    texts = experiment.texts()
    if texts is None or texts.normalization != tokenizer.normalization:
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, "The run does not read the texts of this experiment.")
    request = experiment.record().request
    for text in texts.texts:
        paths = {encoding: losses_path(run, text.sha256, encoding) for encoding in encodings_of(request)}
        if not all(path.exists() for path in paths.values()):
            _score_text(model, tokenizer, experiment.sections(text), paths)
    return len(texts.texts)


def known_characters(tokenizer: Tokenizer, texts: Iterable[Sequence[str]]) -> set[str]:
    """Return the characters of the texts, and the segments with features, that a tokenizer does not read as unknown.

    A word is unknown as a whole, so a tokenizer of words counts as knowing every character.
    """
    characters = SEGMENTS.union(*(section for sections in texts for section in sections))
    unknown = tokenizer.special_ids.unk
    if tokenizer.manifest.method == "word":
        return set(characters)
    return {character for character in characters if unknown not in tokenizer.encode(character)}


def _score_text(
    model: LanguageModel, tokenizer: Tokenizer, sections: Sequence[str], paths: Mapping[Encoding, Path]
) -> None:
    """Write the losses of a text; sections that assimilation leaves as they are have those of the raw text."""
    raw = paths["raw"]
    losses = TextLosses.load(raw) if raw.exists() else _losses(model, tokenizer, list(enumerate(sections)))
    losses.save(raw)
    if "assimilated" in paths:
        replaced = _losses(model, tokenizer, _replaced_sections(tokenizer, sections))
        _merged(losses, replaced).save(paths["assimilated"])


def _merged(losses: TextLosses, others: TextLosses) -> TextLosses:
    """Return the losses with those of some sections replaced by others."""
    stays: NDArray[np.bool_] = ~np.isin(losses.section, others.section)
    section: NDArray[np.int64] = np.concatenate((losses.section[stays], others.section))
    order: NDArray[np.int64] = np.argsort(section, kind="stable")
    return TextLosses(
        section=section[order],
        start=np.concatenate((losses.start[stays], others.start))[order],
        end=np.concatenate((losses.end[stays], others.end))[order],
        loss_nats=np.concatenate((losses.loss_nats[stays], others.loss_nats))[order],
        is_unknown=np.concatenate((losses.is_unknown[stays], others.is_unknown))[order],
    )


def _replaced_sections(tokenizer: Tokenizer, sections: Sequence[str]) -> list[tuple[int, str]]:
    """Return the sections with unknown segments after their replacement, with their numbers.

    A section stays as it is where a replacement would combine with the character after it.
    """
    assimilator = Assimilator(known_characters(tokenizer, [sections]))
    replaced: list[tuple[int, str]] = []
    for number, section in enumerate(sections):
        text = assimilator.replace(section)
        if text != section and normalized(text, tokenizer.normalization) == text:
            replaced.append((number, text))
    return replaced


def _losses(model: LanguageModel, tokenizer: Tokenizer, sections: Sequence[tuple[int, str]]) -> TextLosses:
    """Return the losses of the tokens of sections, given with their numbers; the bytes of a character are one token."""
    unknown = tokenizer.special_ids.unk
    numbers: list[int] = []
    spans: list[tuple[int, int]] = []
    losses: list[float] = []
    is_unknown: list[bool] = []
    for batch in _batches(tokenizer, sections):
        surprisals = sequence_surprisals(model, [ids for _, _, ids in batch])
        for (number, section, ids), surprisal in zip(batch, surprisals, strict=True):
            of_tokens: list[float] = surprisal.tolist()
            of_bytes = 0.0  # of the character whose last byte is to come
            for token, span, loss in zip(ids, tokenizer.spans(section), [math.nan, *of_tokens], strict=True):
                of_bytes += loss
                if token in tokenizer.byte_values and span[0] == span[1]:
                    continue
                numbers.append(number)
                spans.append(span)
                losses.append(of_bytes)
                is_unknown.append(token == unknown)
                of_bytes = 0.0
    bounds: NDArray[np.int64] = np.array(spans, dtype=np.int64).reshape(-1, 2)
    return TextLosses(
        section=np.array(numbers, dtype=np.int64),
        start=bounds[:, 0],
        end=bounds[:, 1],
        loss_nats=np.array(losses, dtype=np.float64),
        is_unknown=np.array(is_unknown, dtype=np.bool_),
    )


def _batches(tokenizer: Tokenizer, sections: Sequence[tuple[int, str]]) -> Iterator[list[tuple[int, str, list[int]]]]:
    """Yield sections with their token ids, many tokens at a time; a section without tokens is left out."""
    batch: list[tuple[int, str, list[int]]] = []
    tokens = 0
    for number, section in sections:
        ids = tokenizer.encode(section)
        if ids:
            batch.append((number, section, ids))
            tokens += len(ids)
        if tokens >= _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch
