"""Contestants of generation, each in a process of its own.

    python -m benchmarks.decode_contestants NAME FOLDER NEW_TOKENS

Ours answer requests of `trainer.inference.generation`, in the environment of the worker's inference process; the others
have that of their user. A request has a prompt of a few tokens, whose reading is in its time.
"""

import random
import sys
from bisect import bisect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.decode_models import exported_in
from benchmarks.reference_tools import load_library_model, row_of
from benchmarks.turns import repeated, serve
from trainer.contracts.generations import GenerateRequest, GenerateResponse, GenerationPrecision
from trainer.export.graphs import GRAPH_FILE, state_names
from trainer.inference.generation import GenerationJob, generate, generate_together, read_prompt, steps_after
from trainer.inference.model_files import load_model
from trainer.models.base import LanguageModel
from trainer.models.compiled_steps import Choices, CompiledSteps
from trainer.models.recurrent import RecurrentModel
from trainer.models.steps import Floats, ModelState
from trainer.system.hardware import default_threads
from trainer.tokenizers.base import Tokenizer

SEQUENCES = 64
PROMPTS = 1, 100, 1000
"""Tokens of the prompts that are read until the first token."""
RUNTIME_THREADS = 1, 2
PROMPT_TOKENS, _FIRST_ID = 8, 8
_SECONDS = 1.0

Work = Callable[[], int]


class _Sessions(Protocol):
    """The part of ONNX Runtime used here."""

    @property
    def SessionOptions(self) -> "type[_Options]": ...
    @property
    def InferenceSession(self) -> "Callable[[str, _Options], _Session]": ...


class _Options(Protocol):
    intra_op_num_threads: int


class _Session(Protocol):
    def run(self, outputs: None, inputs: Mapping[str, object]) -> "list[Floats]": ...


class Loaded(NamedTuple):
    """A model and its tokenizer, as the worker holds them."""

    model: LanguageModel
    tokenizer: Tokenizer

    @property
    def prompt(self) -> str:
        return self.tokenizer.decode(range(_FIRST_ID, _FIRST_ID + PROMPT_TOKENS))

    def request(self, new_tokens: int, **options: object) -> GenerateRequest:
        """Return a request: sampled characters that end no line, or the likeliest words."""
        fields: dict[str, object] = {"prompt_text": self.prompt, "max_new_tokens": new_tokens, "temperature": 0}
        if self.model.context_tokens is None:
            fields |= {"temperature": 1, "stop_on_eos": False, "alphabet": "".join(self.tokenizer.texts)}
        return GenerateRequest.model_validate(fields | options)


def main(name: str, folder: str, new_tokens: str) -> None:
    torch.set_num_threads(default_threads())
    work = CONTESTANTS[name](Path(folder), int(new_tokens))
    serve(lambda: repeated(work, _SECONDS))


def ours(precision: GenerationPrecision, folder: Path, new_tokens: int) -> Work:
    loaded = Loaded(*load_model(folder))
    request = loaded.request(new_tokens, precision=precision)
    return lambda: _steps(generate(*loaded, request, run_id="run", request_id="benchmark"))


def step(precision: GenerationPrecision, folder: Path, new_tokens: int) -> Work:
    """Count the tokens that the compiled step chooses, without the request around it."""
    loaded = Loaded(*load_model(folder))
    ids = read_prompt(loaded.tokenizer, loaded.prompt).ids
    begun = steps_after(loaded.model, [ids], precision)
    if not isinstance(begun, CompiledSteps):
        raise TypeError("there is no compiled step")
    choices = free_choices(loaded.model, 1, new_tokens, loaded.request(1).temperature)

    def write() -> int:
        steps = begun.fork()
        with loaded.model.computing("generation", 1, new_tokens, steps.read_bytes):
            return len(steps.write(choices)[0])

    return write


def free_choices(model: LanguageModel, rows: int, tokens: int, temperature: float) -> Choices:
    """Let the compiled step choose so many tokens of each row from all tokens; none ends a line."""
    draws, temperatures = torch.rand(rows, tokens, dtype=torch.double), torch.full((rows,), temperature).double()
    return Choices(draws, temperatures, [torch.zeros(model.vocab_size, dtype=torch.bool)] * rows, -1)


def ours_at_once(folder: Path, new_tokens: int) -> Work:
    """Count the tokens of many requests that the worker answers together."""
    loaded = Loaded(*load_model(folder))
    queued = GenerateResponse(request_id="benchmark", run_id="run", status="queued")
    requests = [loaded.request(new_tokens, seed=seed) for seed in range(SEQUENCES)]

    def answer() -> int:
        jobs = [GenerationJob(*loaded, request, queued) for request in requests]
        answers = generate_together(loaded.model, jobs)
        return sum(_steps(answer) for answer in answers if isinstance(answer, GenerateResponse))

    return answer


def first_token(prompt_tokens: int, folder: Path, _: int) -> Work:
    """Count requests for one token, each with a prompt of its own."""
    loaded, draw = Loaded(*load_model(folder)), random.Random(1)
    ids = range(_FIRST_ID, loaded.tokenizer.vocab_size)

    def answer() -> int:
        prompt = loaded.tokenizer.decode(draw.choices(ids, k=prompt_tokens))
        request = loaded.request(1, prompt_text=prompt)
        return _steps(generate(*loaded, request, run_id="run", request_id="benchmark"))

    return answer


def loop(folder: Path, new_tokens: int) -> Work:
    """Sample in a loop over `nn.LSTM`, `nn.GRU` or `nn.RNN`, without a prompt."""
    model, tokenizer = load_model(folder)
    if not isinstance(model, RecurrentModel):
        raise TypeError("not a recurrent model")
    layers, projection = model.layers, model.projection

    def sample() -> int:
        token, first = row_of([tokenizer.special_ids.start]), model.initial_state(1)
        state: Tensor | ModelState = first if len(first) > 1 else first[0]
        with torch.inference_mode():
            for _ in range(new_tokens):
                embedded: Tensor = model.embedding(token)
                output: tuple[Tensor, Tensor | ModelState] = layers(embedded, state)
                hidden, state = output
                logits = functional.linear(hidden[:, -1], projection.weight, projection.bias)
                token = torch.multinomial(logits.softmax(-1), 1)
        return new_tokens

    return sample


def onnx_loop(threads: int, folder: Path, new_tokens: int) -> Work:
    """Sample in a loop over a session of ONNX Runtime that reads one token, without a prompt."""
    model, tokenizer = load_model(folder)
    runtime: _Sessions = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(exported_in(folder) / GRAPH_FILE), options)
    first: list[Floats] = [np.zeros(tuple(part.shape), np.float32) for part in model.initial_state(1)]
    names, draw = state_names(len(first)), random.Random(1)

    def sample() -> int:
        token: NDArray[np.int64] = np.full((1, 1), tokenizer.special_ids.start, np.int64)
        state = first
        for _ in range(new_tokens):
            inputs: dict[str, object] = {"ids": token, **dict(zip(names, state, strict=True))}
            logits, *state = session.run(None, inputs)
            # The logits of random weights are small.
            sums: list[float] = np.cumsum(np.exp(logits), dtype=np.float64).tolist()
            token.fill(bisect(sums, draw.random() * sums[-1]))
        return new_tokens

    return sample


def library_generate(precision: GenerationPrecision, folder: Path, new_tokens: int) -> Work:
    """Count the tokens of a greedy continuation by the transformers library."""
    loaded = Loaded(*load_model(folder))
    start = loaded.tokenizer.special_ids.start
    ids = row_of([start, *loaded.tokenizer.encode(loaded.prompt)])
    model = load_library_model(exported_in(folder))
    model = model.bfloat16() if precision == "bf16" else model

    def continuation() -> int:
        [row] = model.generate(ids, max_new_tokens=new_tokens, do_sample=False).tolist()
        return len(row) - ids.shape[1]

    return continuation


def _steps(response: GenerateResponse) -> int:
    return sum(response.steps or ())


CONTESTANTS: Mapping[str, Callable[[Path, int], Work]] = {
    "ours": partial(ours, "fp32"),
    "ours bf16": partial(ours, "bf16"),
    "ours, step": partial(step, "fp32"),
    "ours, step bf16": partial(step, "bf16"),
    f"ours, {SEQUENCES} at once": ours_at_once,
    **{f"ours, first token after {tokens:,}": partial(first_token, tokens) for tokens in PROMPTS},
    **{f"nn.{layers} loop": loop for layers in ("LSTM", "GRU", "RNN")},
    **{f"ONNX Runtime {threads}": partial(onnx_loop, threads) for threads in RUNTIME_THREADS},
    "generate": partial(library_generate, "fp32"),
    "generate bf16": partial(library_generate, "bf16"),
}

if __name__ == "__main__":
    main(*sys.argv[1:])
