"""The rival of GPT-2 training: the plain loop of nanoGPT's example for CPUs, around a model written as it writes it.

    python -m benchmarks.plain_gpt2 SHAPE STEPS TEXT_FILE HAS_BIASES

With 1 linear layers and normalizations have biases, as in GPT-2 and ours; with 0 they have none, nanoGPT's default.
Source of the shape and the loop: https://github.com/karpathy/nanoGPT (train.py, model.py). Prints the tokens per second
of the median step.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.shapes import LEARNING_RATE, SHAPES, Shape, character_ids
from benchmarks.step_times import StepTimes


class Attention(nn.Module):
    def __init__(self, shape: Shape, *, bias: bool) -> None:
        super().__init__()
        self.heads = shape.heads
        self.inputs = nn.Linear(shape.hidden_size, 3 * shape.hidden_size, bias=bias)
        self.output = nn.Linear(shape.hidden_size, shape.hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        merged = torch.split(self.inputs.forward(hidden), width, dim=2)
        query, key, value = [part.view(batch, length, self.heads, -1).transpose(1, 2) for part in merged]
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output.forward(attended.transpose(1, 2).contiguous().view(batch, length, width))


class Block(nn.Module):
    def __init__(self, shape: Shape, *, bias: bool) -> None:
        super().__init__()
        width = shape.hidden_size
        self.before_attention, self.attention = nn.LayerNorm(width, bias=bias), Attention(shape, bias=bias)
        self.before_inner = nn.LayerNorm(width, bias=bias)
        self.widen = nn.Linear(width, 4 * width, bias=bias)
        self.narrow = nn.Linear(4 * width, width, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attention.forward(self.before_attention.forward(hidden))
        return hidden + self.narrow.forward(functional.gelu(self.widen.forward(self.before_inner.forward(hidden))))


class Gpt(nn.Module):
    def __init__(self, shape: Shape, vocabulary: int, *, bias: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, shape.hidden_size)
        self.positions = nn.Embedding(shape.length, shape.hidden_size)
        self.blocks = [Block(shape, bias=bias) for _ in range(shape.layers)]
        self._registered = nn.ModuleList(self.blocks)
        self.norm = nn.LayerNorm(shape.hidden_size, bias=bias)
        self.head = nn.Linear(shape.hidden_size, vocabulary, bias=False)
        self.tokens.weight = self.head.weight

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        hidden = self.tokens.forward(ids) + self.positions.forward(torch.arange(ids.shape[1]))
        for block in self.blocks:
            hidden = block.forward(hidden)
        logits = self.head.forward(self.norm.forward(hidden))
        return functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def main(name: str, steps: int, text_file: str, has_biases: str) -> None:
    shape = SHAPES[name]
    ids, vocabulary = character_ids(Path(text_file))
    torch.manual_seed(1)
    model = Gpt(shape, vocabulary, bias=has_biases == "1")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.1)
    times = StepTimes()
    for _ in range(steps):
        starts: list[int] = torch.randint(len(ids) - shape.length, (shape.rows,)).tolist()
        inputs = torch.stack([ids[start : start + shape.length] for start in starts])
        targets = torch.stack([ids[start + 1 : start + 1 + shape.length] for start in starts])
        loss = model.forward(inputs, targets)
        torch.autograd.backward([loss])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.add()
    print(times.tokens_per_second(shape.rows * shape.length))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
