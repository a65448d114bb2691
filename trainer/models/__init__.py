"""Build a model from its config."""

from typing import assert_never

import torch

from trainer.contracts.models import (
    BertConfig,
    Gpt2Config,
    LlamaConfig,
    ModelConfig,
    NgramConfig,
    Objective,
    QwenConfig,
    RnnConfig,
)
from trainer.models.base import LanguageModel
from trainer.models.ngram import NgramModel
from trainer.models.recurrent import RecurrentModel
from trainer.models.threads import using_threads
from trainer.tokenizers.base import Vocabulary

_MKL_FUNCTIONS = (torch.cos, torch.erf, torch.exp, torch.log, torch.sin, torch.sqrt, torch.tanh)


def build(config: ModelConfig, vocabulary: Vocabulary, objective: Objective = "causal_lm") -> LanguageModel:
    """Build a model with random weights, drawn from torch's default generator.

    The transformers library takes seconds to import, so only the transformer branches import it.
    """
    _choose_code()
    with using_threads(1):  # orthogonal weights depend on the number of threads
        model = _build(config, vocabulary, objective)
    model.built_from = config
    return model


def untrained(model: LanguageModel, seed: int) -> LanguageModel:
    """Build the architecture of a model on its device, in evaluation mode, with weights drawn from a seed."""
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        fresh = build(model.built_from, model.vocabulary, model.objective)
    finally:
        torch.set_rng_state(state)
    return fresh.eval().to(model.device)


def _choose_code() -> None:
    """Call each function that torch takes from MKL with a single number, in both precisions.

    MKL chooses its code for a function at the first call in a process. If threads share that call, one of them can get
    code for low accuracy, once: a score was off by 3e-05 nats. Source: https://github.com/pytorch/pytorch/issues/188792
    """
    for dtype in (torch.float32, torch.float64):
        number = torch.ones(1, dtype=dtype, device="cpu")  # on the CPU, even where new tensors are on another device
        for function in _MKL_FUNCTIONS:
            function(number)


def _build(config: ModelConfig, vocabulary: Vocabulary, objective: Objective) -> LanguageModel:
    match config:
        case RnnConfig():
            return RecurrentModel(config, vocabulary, objective)
        case Gpt2Config():
            from trainer.models.gpt2 import Gpt2Model

            return Gpt2Model(config, vocabulary, objective)
        case LlamaConfig() | QwenConfig():
            from trainer.models.rotary import RotaryModel

            return RotaryModel(config, vocabulary, objective)
        case BertConfig():
            from trainer.models.bert import BertModel

            return BertModel(config, vocabulary, objective)
        case NgramConfig():
            return NgramModel(config, vocabulary, objective)
        case _:
            assert_never(config)
