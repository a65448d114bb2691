"""Every family of models at its smallest, as a request asks for it: what the contract tests go over."""

from collections.abc import Iterable

import numpy as np
import torch

from tests.support.markers import slow_except
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.models import CONFIGS, PRESETS, ModelConfig, Objective, TransformerConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, TrainRequest
from trainer.contracts.tokenizers import SpecialIds
from trainer.models import build
from trainer.models.base import LanguageModel
from trainer.models.ngram import NgramModel
from trainer.ngrams.choose import choose_ngram
from trainer.ngrams.kneser_ney import KneserNey
from trainer.tokenizers.base import Ids, Vocabulary
from trainer.training.counting import filled

_SMALL_RNN = {"embedding_size": 12, "hidden_size": 16, "num_layers": 2, "dropout": 0.1}
_SMALL = {"num_layers": 2, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
_ROTARY = _SMALL | {"dropout": 0.0, "attention_dropout": 0.1}
_BOTH_SIDES = {"model": _SMALL_RNN | {"bidirectional": True}, "objective": "masked_lm"}
FAMILIES: dict[str, dict[str, object]] = {
    "char_lstm": {"model_family": "char_lstm", "model": _SMALL_RNN},
    "lstm": {"model_family": "lstm", "model": _SMALL_RNN},
    "gru": {"model_family": "gru", "model": _SMALL_RNN},
    "rnn": {"model_family": "rnn", "model": _SMALL_RNN},
    "gpt2": {"model_family": "gpt2", "model": _SMALL},
    "llama": {"model_family": "llama", "model": _ROTARY | {"num_key_value_heads": 2}},
    "qwen": {"model_family": "qwen", "model": _ROTARY | {"num_key_value_heads": 1}},
    "lstm both": {"model_family": "lstm", **_BOTH_SIDES},
    "gru both": {"model_family": "gru", **_BOTH_SIDES},
    "rnn both": {"model_family": "rnn", **_BOTH_SIDES},
    "bert": {"model_family": "bert", "model": _SMALL},
}
"""Fields of a request by name; ` both` reads in two directions."""

NGRAM: dict[str, object] = {"model_family": "ngram", "model": {"max_order": 3}}
"""Counted at once: it has no gradients and steps, which most of the contract is about."""
OTHERS = [name for name in CONFIGS if name not in (*FAMILIES, "ngram")]
"""Those that stand not here yet, by their presets `tiny`: the contract holds for whatever is added."""
FAMILIES |= {name: {"model_family": name, "model": PRESETS[name]["tiny"]} for name in OTHERS}
EVERY = FAMILIES | {"ngram": NGRAM}
QUICK = ["lstm", "lstm both", "gpt2", "bert", "ngram", *OTHERS]
"""The families that the longer tests take in `make test`; `make check` takes all."""

CAUSAL = ["char_lstm", "lstm", "gru", "rnn", "gpt2", "llama", "qwen"]
MASKED = ["lstm both", "gru both", "rnn both", "bert"]
CAUSAL += [name for name in OTHERS if "causal_lm" in CONFIGS[name].objectives]
MASKED += [name for name in OTHERS if "causal_lm" not in CONFIGS[name].objectives]
CONTINUING = [*CAUSAL, "ngram"]
"""Those that continue a text."""
TRANSFORMERS = ["gpt2", "llama", "qwen", "bert"]
TRANSFORMERS += [name for name in OTHERS if issubclass(CONFIGS[name], TransformerConfig)]
READ_ONCE = [name for name in TRANSFORMERS if name in CAUSAL]
"""Those whose context is limited, though they read from left to right."""
POSITIONS = 24
CHAR_IDS = SpecialIds(pad=0, unk=1, bos=2, eos=3)


def slow_unless_quick(names: Iterable[str]) -> list[object]:
    """Return families as parameters of a longer test, which `make test` runs for those of QUICK only."""
    return slow_except(names, *QUICK)


def vocabulary(size: int, **others: int) -> Vocabulary:
    """As many tokens, with the special ids of characters but for the others."""
    return Vocabulary(size, CHAR_IDS._replace(**others))


VOCABULARY = vocabulary(13, mask=4)


def request_of(name: str, **values: object) -> TrainRequest:
    fields: dict[str, object] = {"corpus": "text", "tokenizer": {"method": "char"}}
    if name in FAMILIES:
        fields["max_seq_len"] = POSITIONS
    return parse(TrainRequest, {**fields, **EVERY[name], **values})


def effective_of(name: str, **values: object) -> EffectiveRequest:
    corpus = CorpusRef(name="text", sha256="0" * 64, bytes=1)
    return resolve(request_of(name, **values), corpus=corpus)


def config_of(name: str) -> tuple[ModelConfig, Objective]:
    effective = effective_of(name)
    return effective.model, effective.objective


def model_of(name: str, tokens: Vocabulary = VOCABULARY, *, lively: bool = True) -> LanguageModel:
    """A model without dropout; a lively one has weights that are large enough for its answers to differ."""
    torch.manual_seed(5)
    model = build(*with_vocabulary(name, tokens))
    if isinstance(model, NgramModel):
        return filled(model, _counted(tokens))
    if lively:
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(std=0.4)
    return model.eval()


def _counted(tokens: Vocabulary) -> KneserNey:
    """N-grams of lines in which two letters leave a choice of two for the next."""
    special_ids, draws = tokens.special_ids, np.random.Generator(np.random.PCG64(5))
    letters = [token for token in range(tokens.size) if token not in special_ids.all]
    ids: list[int] = []
    for _ in range(40):
        chosen: list[int] = draws.integers(2, size=draws.integers(1, 30)).tolist()
        places = [0, 1]
        for choice in chosen:
            places.append((places[-1] + places[-2] + choice) % len(letters))
        line = [letters[place] for place in places[2:]]
        ids += [*([] if special_ids.line_start is None else [special_ids.line_start]), *line, special_ids.line_end]
    text: Ids = np.array(ids, dtype=np.uint16)
    half = ids.index(special_ids.line_end, len(ids) // 2) + 1
    found = choose_ngram(text[:half], text[half:], vocab_size=tokens.size, special_ids=special_ids, max_order=3)
    return found.model


def with_vocabulary(name: str, tokens: Vocabulary) -> tuple[ModelConfig, Vocabulary, Objective]:
    config, objective = config_of(name)
    return config, tokens, objective
