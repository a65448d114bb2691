"""Losses of the texts of an experiment, against models that read one section at a time."""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support import families
from tests.support.cross_language import plan
from tests.support.reference import ReferenceModel
from tests.support.tiny_models import NFC, char_tokenizer, small_model, tensor_of, tokenizer_of
from trainer.artifacts.experiments import ExperimentDirectory, ExperimentStore, losses_path
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import Encoding, ExperimentRecord, ExperimentText, ExperimentTexts, ScoringMode
from trainer.contracts.tokenizers import Normalization
from trainer.experiments.text_losses import TextLosses
from trainer.inference import section_scores
from trainer.inference.section_scores import known_characters, score_experiment_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

SECTIONS = ["abd eb", "aʒed", "b", "dɑbʒ be"]
CHAR = char_tokenizer(["abdeʃ "])


def experiment_of(
    folder: Path,
    sections: Sequence[str] = SECTIONS,
    modes: tuple[ScoringMode, ...] = ("skip", "assimilate"),
    normalization: Normalization = NFC,
) -> ExperimentDirectory:
    """An experiment with one text."""
    content = "\n".join(sections).encode()
    record = ExperimentRecord(
        experiment_id="small-01234567",
        user_id=None,
        created_at=now(),
        request=plan(modes=modes),
        request_hash="0" * 64,
        corpora={},
    )
    experiment = ExperimentStore(folder).create(record)
    experiment.write_text("passages-kk", content)
    text = ExperimentText(
        text_id="passages-kk",
        kind="passages",
        language="kk",
        sections=len(sections),
        characters=1,
        sha256=sha256(content).hexdigest(),
    )
    experiment.write_texts(ExperimentTexts(normalization=normalization, texts=(text,)))
    return experiment


def stored(run: Path, experiment: ExperimentDirectory, encoding: Encoding = "raw") -> TextLosses:
    texts = experiment.texts()
    assert texts is not None
    return TextLosses.load(losses_path(run, texts.texts[0].sha256, encoding))


def ints(column: NDArray[np.int64] | NDArray[np.bool_]) -> list[int]:
    values: list[int] = column.astype(np.int64).tolist()
    return values


def by_section(losses: TextLosses) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    numbers = ints(losses.section)
    nats: list[float] = losses.loss_nats.tolist()
    for number, loss in zip(numbers, nats, strict=True):
        found.setdefault(number, []).append(loss)
    return found


def by_hand(model: LanguageModel, tokenizer: Tokenizer, section: str) -> list[float]:
    """Losses of a section from a zero state, without [BOS]: the first character has none."""
    ids = tokenizer.encode(section)
    answers = ReferenceModel(model, "lstm").log_probabilities(ids[:-1])
    return [math.nan, *(-p[i] for p, i in zip(answers, ids[1:], strict=True))]


def approx(losses: Mapping[int, list[float]]) -> dict[int, object]:
    return {number: pytest.approx(values, rel=1e-5, nan_ok=True) for number, values in losses.items()}


def test_scores__are_those_of_each_section_from_a_zero_state(tmp_path: Path) -> None:
    model, experiment = small_model(vocabulary_of(CHAR)), experiment_of(tmp_path)
    assert score_experiment_texts(model, CHAR, tmp_path, experiment) == 1
    losses = stored(tmp_path, experiment)
    assert by_section(losses) == approx({n: by_hand(model, CHAR, text) for n, text in enumerate(SECTIONS)})
    assert ints(losses.start) == [i for text in SECTIONS for i in range(len(text))]
    assert ints(losses.end) == [i + 1 for text in SECTIONS for i in range(len(text))]
    assert ints(losses.is_unknown) == [character in "ɑʒ" for text in SECTIONS for character in text]


def test_assimilated__are_the_losses_of_the_nearest_known_segments(tmp_path: Path) -> None:
    model, experiment = small_model(vocabulary_of(CHAR)), experiment_of(tmp_path)
    score_experiment_texts(model, CHAR, tmp_path, experiment)
    raw, assimilated = stored(tmp_path, experiment), stored(tmp_path, experiment, "assimilated")
    # ʒ is a voiced ʃ, and of the known vowels a is nearest to ɑ
    replaced = [text.replace("ʒ", "ʃ").replace("ɑ", "a") for text in SECTIONS]
    assert by_section(assimilated) == approx({n: by_hand(model, CHAR, text) for n, text in enumerate(replaced)})
    assert not any(ints(assimilated.is_unknown))
    assert ints(assimilated.start) == ints(raw.start)


def test_section__that_would_combine_after_a_replacement_stays_as_it_is(tmp_path: Path) -> None:
    model, experiment = small_model(vocabulary_of(CHAR)), experiment_of(tmp_path, ["be\u0334ɑ\u0303d"])
    score_experiment_texts(model, CHAR, tmp_path, experiment)
    raw, assimilated = stored(tmp_path, experiment), stored(tmp_path, experiment, "assimilated")
    assert np.array_equal(raw.loss_nats, assimilated.loss_nats, equal_nan=True)
    assert sum(ints(assimilated.is_unknown)) == 3


def test_scores__that_exist_are_not_computed_again(tmp_path: Path) -> None:
    first = experiment_of(tmp_path / "first", modes=("unk",))
    score_experiment_texts(small_model(vocabulary_of(CHAR)), CHAR, tmp_path, first)
    raw = stored(tmp_path, first)
    with pytest.raises(FileNotFoundError):
        stored(tmp_path, first, "assimilated")

    again = experiment_of(tmp_path / "again")
    other = small_model(vocabulary_of(CHAR), layers=1)
    score_experiment_texts(other, CHAR, tmp_path, again)

    assert stored(tmp_path, again).loss_nats.tobytes() == raw.loss_nats.tobytes()
    assimilated = by_section(stored(tmp_path, again, "assimilated"))
    assert assimilated[0][1:] == by_section(raw)[0][1:]
    assert assimilated[1] == pytest.approx(by_hand(other, CHAR, "aʃed"), rel=1e-5, nan_ok=True)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sections").iterdir()}
    assert score_experiment_texts(other, CHAR, tmp_path, again) == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "sections").iterdir()} == before


def test_masked_model__gives_each_token_but_the_first_its_pseudo_log_likelihood(tmp_path: Path) -> None:
    tokenizer = char_tokenizer(["abdeʃ "], mask_token=True)
    model = families.model_of("bert", vocabulary_of(tokenizer)).eval()
    experiment = experiment_of(tmp_path, modes=("unk",))

    score_experiment_texts(model, tokenizer, tmp_path, experiment)

    def masked(section: str) -> list[float]:
        special, ids = tokenizer.special_ids, tokenizer.encode(section)
        losses = [math.nan]
        for position in range(1, len(ids)):
            before, after = ids[:position], ids[position + 1 :]
            row = tensor_of([[special.start, *before, special.mask or 0, *after, special.eos]])
            with torch.no_grad():
                logits = model.logits(model.hidden_states(row))[0, position + 1]
            losses.append(-float(torch.log_softmax(logits, -1)[ids[position]]))
        return losses

    expected = {number: masked(section) for number, section in enumerate(SECTIONS)}
    assert by_section(stored(tmp_path, experiment)) == approx(expected)


def test_transformer__scores_every_token_of_a_section_beyond_its_context(tmp_path: Path) -> None:
    tokenizer = char_tokenizer(["abdeʃ "])
    model = families.model_of("gpt2", vocabulary_of(tokenizer)).eval()
    section = "abed dab ʃe" * 9
    experiment = experiment_of(tmp_path, [section], modes=("unk",))
    score_experiment_texts(model, tokenizer, tmp_path, experiment)
    losses: list[float] = stored(tmp_path, experiment).loss_nats.tolist()
    ids = tensor_of([tokenizer.encode(section)[: families.POSITIONS]])
    with torch.no_grad():
        log_p = torch.log_softmax(model.logits(model.hidden_states(ids))[0], -1)
    direct = [-float(log_p[i, int(ids[0, i + 1])]) for i in range(families.POSITIONS - 1)]
    assert len(losses) == len(section) == 99
    assert losses[1 : families.POSITIONS] == pytest.approx(direct, rel=1e-4)
    assert not any(map(math.isnan, losses[1:]))


def test_long_text__is_scored_in_batches_of_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, experiment = small_model(vocabulary_of(CHAR)), experiment_of(tmp_path, modes=("unk",))
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    score_experiment_texts(model, CHAR, tmp_path / "whole", experiment)
    monkeypatch.setattr(section_scores, "_BATCH_TOKENS", 8)
    score_experiment_texts(model, CHAR, tmp_path / "parts", experiment)
    whole, parts = stored(tmp_path / "whole", experiment), stored(tmp_path / "parts", experiment)
    assert ints(parts.section) == ints(whole.section)
    assert by_section(parts) == approx(by_section(whole))


def test_run__that_normalizes_differently_is_refused(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, normalization=Normalization(lowercase=True))
    with pytest.raises(AppError) as refused:
        score_experiment_texts(small_model(vocabulary_of(CHAR)), CHAR, tmp_path, experiment)
    assert refused.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_known_characters__are_those_that_are_not_read_as_unknown() -> None:
    known = known_characters(CHAR, [["abʒ"], ["ʘ"]])
    assert known >= {"a", "b", "d", "e", "ʃ"}
    assert not known & {"ʒ", "ɑ", "ʘ"}


def test_tokenizer_of_words__replaces_no_character(tmp_path: Path) -> None:
    words = tokenizer_of("word", ["abd aed be", "abd be"])
    model, experiment = small_model(vocabulary_of(words)), experiment_of(tmp_path, ["abd ʒebe be", "be abd"])
    score_experiment_texts(model, words, tmp_path, experiment)
    raw, assimilated = stored(tmp_path, experiment), stored(tmp_path, experiment, "assimilated")
    assert ints(raw.is_unknown) == [0, 1, 0, 0, 0]
    assert np.array_equal(raw.loss_nats, assimilated.loss_nats, equal_nan=True)
    assert ints(raw.end) == [3, 8, 11, 2, 6]


def test_section__without_tokens_has_no_losses(tmp_path: Path) -> None:
    words = tokenizer_of("word", ["abd aed be", "abd be"])
    experiment = experiment_of(tmp_path, ["abd be", "   ", "be"], modes=("unk",))
    score_experiment_texts(small_model(vocabulary_of(words)), words, tmp_path, experiment)
    assert ints(stored(tmp_path, experiment).section) == [0, 0, 2]
