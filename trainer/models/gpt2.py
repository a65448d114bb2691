"""GPT-2 of the transformers library, with its embedding as head."""

from torch import nn
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Model

from trainer.contracts.generations import GenerationPrecision
from trainer.contracts.models import Gpt2Config, Objective
from trainer.models.step_program import FUNCTIONS, StepProgram, pad_parts, padded
from trainer.models.transformer import CausalTransformer, library_activation, vocabulary_fields
from trainer.tokenizers.base import Vocabulary

_MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class Gpt2Model(CausalTransformer[GPT2Model]):
    """GPT-2 (Radford et al. 2019)."""

    def __init__(self, config: Gpt2Config, vocabulary: Vocabulary, objective: Objective) -> None:
        body = GPT2Model(library_config(config, vocabulary))
        super().__init__(config, body, vocabulary, objective)
        self.config = config

    def step_program(self, precision: GenerationPrecision) -> StepProgram:
        config, weights = self.config, dict(self.body.named_parameters())
        size, heads = config.hidden_size, config.num_attention_heads
        epsilon: float = self.body.config.layer_norm_epsilon
        program, width = self.empty_program(precision), padded(size // heads)
        hidden, normal = program.floats(size), program.floats(size)
        merged, attended = program.floats(3 * heads * width), program.floats(heads * width)
        inner = program.floats(config.intermediate_size)

        def normalize(name: str) -> None:
            program.norm(weights[f"{name}.weight"], weights[f"{name}.bias"], hidden, normal, epsilon)

        program.embed(program.matrix(weights["wte.weight"]), hidden, program.matrix(weights["wpe.weight"]))
        for layer in range(config.num_layers):
            of_layer = {name.removeprefix(f"h.{layer}."): weight for name, weight in weights.items()}
            matrices = {name: of_layer[f"{name}.weight"].t() for name in _MATRICES}  # (outputs, inputs)
            biases = {name: of_layer[f"{name}.bias"] for name in _MATRICES}
            normalize(f"h.{layer}.ln_1")
            weight, bias = (pad_parts(part["attn.c_attn"], size // heads) for part in (matrices, biases))
            program.product(weight, bias, normal, merged)
            program.attend(self.key_values, layer, heads, merged, attended)
            of_heads = pad_parts(matrices["attn.c_proj"].t(), size // heads).t()
            program.product(of_heads, biases["attn.c_proj"], attended, hidden, adds=True)
            normalize(f"h.{layer}.ln_2")
            activation = FUNCTIONS[config.activation_function]
            program.product(matrices["mlp.c_fc"], biases["mlp.c_fc"], normal, inner, activation=activation)
            program.product(matrices["mlp.c_proj"], biases["mlp.c_proj"], inner, hidden, adds=True)
        normalize("ln_f")
        program.logits(self.head_weight(), None, normal)
        return program

    def input_embedding(self) -> nn.Embedding:
        return self.body.wte


def library_config(config: Gpt2Config, vocabulary: Vocabulary) -> GPT2Config:
    """Return the config of the transformers library for a model."""
    return GPT2Config(
        **vocabulary_fields(vocabulary),
        n_positions=config.max_position_embeddings,
        n_embd=config.hidden_size,
        n_layer=config.num_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
        activation_function=library_activation(config.activation_function),
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.attention_dropout,
        tie_word_embeddings=config.tie_word_embeddings,
    )
