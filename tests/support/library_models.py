"""The models of the transformers library, made here by its own classes, with the weights of ours."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol

from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig

from tests.support.families import POSITIONS
from trainer.models.base import LanguageModel

COMMON: dict[str, object] = {"vocab_size": 13, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
ROTARY: dict[str, object] = COMMON | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": POSITIONS,
}


class Output(Protocol):
    logits: Tensor


class MakeConfig(Protocol):
    def __call__(self, **values: object) -> PreTrainedConfig: ...


class Theirs(Protocol):
    """A model of the library with its head."""

    def __call__(self, ids: Tensor, attention_mask: Tensor | None = None) -> Output: ...
    def eval(self) -> "Theirs": ...
    def load_state_dict(self, weights: Mapping[str, Tensor], strict: bool) -> tuple[list[str], list[str]]: ...


def theirs(module: str, config: str, model: str, **values: object) -> Theirs:
    make_config: MakeConfig = getattr(import_module(f"transformers.models.{module}.configuration_{module}"), config)
    make_model: Callable[[PreTrainedConfig], Theirs] = getattr(
        import_module(f"transformers.models.{module}.modeling_{module}"), model
    )
    return make_model(make_config(**values)).eval()


def library_model(name: str) -> tuple[Theirs, dict[str, str]]:
    """Their model, and how the names of our weights begin in it."""
    if name == "gpt2":
        sizes: dict[str, object] = {"n_embd": 16, "n_inner": 24, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
        made = theirs("gpt2", "GPT2Config", "GPT2LMHeadModel", **COMMON, **sizes, activation_function="gelu")
        return made, {"body.": "transformer."}
    if name == "llama":
        made = theirs("llama", "LlamaConfig", "LlamaForCausalLM", **ROTARY, num_key_value_heads=2)
        return made, {"body.": "model.", "head.": "lm_head."}
    if name == "qwen":
        tied: dict[str, object] = {"num_key_value_heads": 1, "tie_word_embeddings": True}
        made = theirs("qwen2", "Qwen2Config", "Qwen2ForCausalLM", **ROTARY, **tied)
        return made, {"body.": "model."}
    made = theirs("bert", "BertConfig", "BertForMaskedLM", **ROTARY)
    return made, {"body.": "bert.", "transform.": "cls.predictions.transform.", "head_bias": "cls.predictions.bias"}


def library_twin(name: str, ours: LanguageModel) -> Theirs:
    """Their model with the weights of ours."""
    library, prefixes = library_model(name)
    weights: dict[str, Tensor] = ours.state_dict()
    renamed = {
        key.replace(mine, other, 1): weight
        for key, weight in weights.items()
        for mine, other in prefixes.items()
        if key.startswith(mine)
    }
    _, unexpected = library.load_state_dict(renamed, strict=False)
    assert (len(renamed), unexpected) == (len(weights), [])
    return library
