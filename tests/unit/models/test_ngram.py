"""N-gram models as language models: the probabilities of their counts, in every use."""

from math import log
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests.support.answers import log_probabilities
from tests.support.families import effective_of
from tests.support.refusals import refused
from tests.support.tiny_models import POEM, floats, tensor_of, tokenizer_of
from trainer.contracts.errors import ErrorCode
from trainer.contracts.models import NgramConfig
from trainer.contracts.tokenizers import DocumentMode
from trainer.inference.model_files import load_model, save_model
from trainer.models import build, untrained
from trainer.models.ngram import NgramModel
from trainer.ngrams.choose import choose_ngram
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.device import resolve as resolve_compute

COMPUTE = resolve_compute(effective_of("lstm"))
HELD_OUT = ["the sun was bright", "", "he made the day", "a voyage"]
MODES: list[DocumentMode] = ["line", "stream"]
every_mode = pytest.mark.parametrize("documents", MODES)
every_order = pytest.mark.parametrize("max_order", [1, 2, 5])


def tokenizer_for(documents: DocumentMode) -> Tokenizer:
    return tokenizer_of("char", [*POEM, *HELD_OUT], documents=documents)


def model_of(tokenizer: Tokenizer, max_order: int = 5) -> NgramModel:
    train, validation = (tokenizer.encode_documents("\n".join(lines)) for lines in (POEM[:8], POEM[8:]))
    vocabulary = vocabulary_of(tokenizer)
    size, special_ids = vocabulary
    engine = choose_ngram(train, validation, vocab_size=size, special_ids=special_ids, max_order=max_order).model
    sizes = tuple(len(keys) for keys in engine.tables.keys)
    config = NgramConfig(max_order=max_order, order=engine.order, ngrams=sizes, discounts=engine.discounts)
    model = build(config, vocabulary)
    assert isinstance(model, NgramModel)
    model.fill(engine.tables)
    return model


@every_order
def test_logits__are_logarithms_of_the_probabilities_after_each_token(max_order: int) -> None:
    model = model_of(tokenizer_for("line"), max_order)
    size = model.engine.order - 1
    ids = [2, 5, 9, 7, 3, 2, 6, 6, 1, 11, 5, 8]
    before = [-1] * (size - 1) + ids
    contexts = [before[end : end + size] for end in range(len(ids))]
    probabilities: list[float] = model.engine.distribution(np.array(contexts, dtype=np.int64)).flatten().tolist()
    logits = floats(model.forward(tensor_of([ids])).flatten())
    lowest = float(np.finfo(np.float32).tiny)
    assert logits == pytest.approx([log(max(probability, lowest)) for probability in probabilities], rel=1e-6)


def test_sampling__never_draws_a_token_that_no_text_has() -> None:
    tokenizer = tokenizer_for("line")
    model = model_of(tokenizer)
    special_ids = tokenizer.special_ids
    assert special_ids.bos is not None and special_ids.pad is not None
    for answer in log_probabilities(model, [2, 5, 9]):
        assert max(answer[special_ids.bos], answer[special_ids.pad]) < -80


@every_mode
@every_order
def test_saved_model__has_the_same_counts(documents: DocumentMode, max_order: int, tmp_path: Path) -> None:
    tokenizer = tokenizer_for(documents)
    model, ids = model_of(tokenizer, max_order), tokenizer.encode_documents("\n".join(HELD_OUT))
    save_model(tmp_path, model, model.config)
    tokenizer.save(tmp_path / "tokenizer")
    loaded, _ = load_model(tmp_path)
    assert isinstance(loaded, NgramModel)
    losses, expected = loaded.engine.losses_nats(ids), model.engine.losses_nats(ids)
    assert np.array_equal(losses, expected)
    assert loaded.parameter_count() == sum(len(keys) for keys in model.engine.tables.keys)
    tables: dict[str, Tensor] = loaded.state_dict()
    assert loaded.memory_bytes() == sum(table.nbytes for table in tables.values())


@pytest.mark.parametrize("change", ["first", "last", "order"])
def test_load__refuses_keys_that_are_no_n_grams(change: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for("line")
    model = model_of(tokenizer)
    keys = model.get_buffer("keys_3")
    match change:
        case "first":
            keys[0] = -1
        case "last":
            keys[-1] = 1 << 62
        case _:
            keys[3] = keys[4]
    save_model(tmp_path, model, model.config)
    tokenizer.save(tmp_path / "tokenizer")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "cannot be read"):
        load_model(tmp_path)


def test_uncounted_model__gives_all_tokens_of_texts_equal_probabilities() -> None:
    tokenizer = tokenizer_for("line")
    vocabulary = vocabulary_of(tokenizer)
    for model in (build(NgramConfig(max_order=5), vocabulary), untrained(model_of(tokenizer), seed=1)):
        for answer in log_probabilities(model, [2, 5, 9]):
            of_texts = answer[1:2] + answer[3:]  # [PAD] and [BOS] are never predicted
            assert of_texts == pytest.approx([-log(len(of_texts))] * len(of_texts), abs=1e-5)


def test_embedding__is_none() -> None:
    with pytest.raises(ValueError, match="a model of counts has no embedding"):
        model_of(tokenizer_for("line")).input_embedding()
