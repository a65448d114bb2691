"""The compiled step against the forward pass: any shape and state, any rows, in every build that this CPU runs."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.families import CAUSAL, POSITIONS, VOCABULARY, config_of, model_of, slow_unless_quick, vocabulary
from tests.support.properties import for_all_pairs
from tests.support.tiny_models import doubles, tensor_of
from trainer.contracts.base import changed
from trainer.contracts.generations import GenerateRequest, GenerationPrecision
from trainer.contracts.models import LlamaConfig, ModelConfig, QwenConfig, RnnConfig
from trainer.inference.sampling import choose
from trainer.models import base, build
from trainer.models.base import LanguageModel
from trainer.models.compiled_steps import Choices, CompiledSteps
from trainer.models.step_program import StepProgram
from trainer.models.steps import Floats, ForwardSteps, ModelState, Steps, concatenate_states
from trainer.models.threads import using_threads
from trainer.native.library import builds

BUILDS = {each.name: each for each in builds()}
compiled = pytest.mark.skipif(not BUILDS, reason="there is no compiled step: the set-up found no C compiler")
PRECISIONS: list[GenerationPrecision] = ["fp32", "bf16", "fp32", "bf16"]


@pytest.fixture(autouse=True)
def one_thread_fixture() -> Iterator[None]:
    """Several threads wait for each other in each operation, which takes long beside other tests."""
    with using_threads(1):
        yield


def after(model: LanguageModel, lengths: Sequence[int], random: Random) -> tuple[ModelState, Tensor]:
    """The state and logits after a random prompt of each length, and zeros before the first token."""
    read: list[tuple[Tensor, ModelState]] = []
    with torch.inference_mode():
        for length in lengths:
            ids = tensor_of([[random.randrange(model.vocab_size) for _ in range(length)]])
            empty = model.initial_state(1)
            unread = torch.zeros(1, 1, model.vocab_size), empty
            read.append(model.forward_with_state(ids, empty) if length else unread)
    logits = torch.cat([logits[:, -1] for logits, _ in read])
    return concatenate_states([state for _, state in read]), logits


def compare(steps: Steps, model: LanguageModel, state: ModelState, logits: Tensor, random: Random) -> None:
    """Let sequences read tokens, wait, and leave; compare the logits after each step with those of the forward pass."""
    plain = ForwardSteps(model.forward_with_state, state, logits)
    rows = list(range(len(logits)))
    room = POSITIONS - (state[0].shape[2] if model.context_tokens else 0)
    for step in range(room):
        reading = rows if step % 3 else sorted(random.sample(rows, random.randint(1, len(rows))))
        tokens = [random.randrange(model.vocab_size) for _ in reading]
        for each in (steps, plain):
            each.read(tokens, reading)
        np.testing.assert_allclose(steps.logits, plain.logits, rtol=1e-5, atol=5e-5)
        if step == 4 and len(rows) > 1:
            for each in (steps, plain):
                each.keep(rows[1:])
            rows = rows[:-1]


@pytest.mark.parametrize("name_of_build", BUILDS)
@pytest.mark.parametrize("lengths", [(1,), (3, 3), (2, 5, 1), (1, 4, 2, 2, 6, 3), (1, 2) * 9], ids=str)
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_steps__give_the_logits_of_the_forward_pass(name: str, lengths: tuple[int, ...], name_of_build: str) -> None:
    model, random = model_of(name), Random(7)
    state, logits = after(model, lengths, random)
    program = model.step_program("fp32")
    assert program is not None
    steps = CompiledSteps(program, BUILDS[name_of_build], state, logits)
    compare(steps, model, state, logits, random)


def shaped(config: ModelConfig, sizes: list[int]) -> ModelConfig:
    """The config of a model with odd sizes, some layers, and heads that share keys."""
    layers, is_tied = 1 + sizes[2] % 3, sizes[3] % 2 == 0
    if isinstance(config, RnnConfig):
        fields = {"embedding_size": sizes[0], "hidden_size": sizes[1], "num_layers": layers}
    else:
        heads = 1 + sizes[0] % 4
        groups = (
            {"num_key_value_heads": heads if sizes[4] % 2 else 1}
            if isinstance(config, LlamaConfig | QwenConfig)
            else {}
        )
        fields = {"num_attention_heads": heads, "hidden_size": heads * 2 * sizes[1], "num_layers": layers, **groups}
        fields |= {"intermediate_size": sizes[4]}
    return changed(config, **fields, tie_word_embeddings=is_tied)


@for_all_pairs(
    st.tuples(st.sampled_from(CAUSAL), st.lists(st.integers(1, 40), min_size=6, max_size=6)),
    st.lists(st.integers(0, POSITIONS), min_size=1, max_size=10),
)
def test_steps__have_any_shape_rows_and_states(shape: tuple[str, list[int]], lengths: list[int]) -> None:
    """Also before the first token, with a full context, and with weights that are no numbers."""
    name, sizes = shape
    torch.manual_seed(sizes[0])
    model, random = build(shaped(config_of(name)[0], sizes), vocabulary(4 + sizes[5])).eval(), Random(sizes[1])
    if sizes[1] % 4 == 0:
        with torch.no_grad():
            model.input_embedding().weight[sizes[5]] = math.nan
    state, logits = after(model, lengths, random)
    program = model.step_program("fp32")
    assert program is not None
    for each in BUILDS.values():
        compare(CompiledSteps(program, each, state, logits), model, state, logits, random)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh"])
def test_steps__have_every_activation(name: str, activation: str) -> None:
    model, random = build(changed(config_of(name)[0], activation_function=activation), VOCABULARY).eval(), Random(1)
    state, logits = after(model, (2, 3), random)
    compare(model.steps(state, logits), model, state, logits, random)


@pytest.mark.parametrize("name", ["lstm", "gru", "gpt2", "llama"])
def test_steps__give_the_logits_of_a_large_vocabulary(name: str) -> None:
    """The gates of all its tokens would take too much memory."""
    model, random = model_of(name, VOCABULARY._replace(size=300_000)), Random(2)
    state, logits = after(model, (2, 5, 1), random)
    compare(model.steps(state, logits), model, state, logits, random)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_bf16__rounds_each_matrix_and_nothing_else(name: str, is_tied: bool) -> None:
    config = config_of(name)[0]
    model, random = build(changed(config, tie_word_embeddings=is_tied), VOCABULARY).eval(), Random(3)
    rounded = deepcopy(model)
    with torch.no_grad():
        for weight in rounded.parameters():
            if weight.dim() > 1:
                weight.copy_(weight.bfloat16())
    state, logits = after(model, (3, 1), random)
    compare(model.steps(state, logits, "bf16"), rounded, state, logits, random)


@pytest.mark.parametrize(("rows", "threads"), [(1, 2), (2, 1), (7, 3)])
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_bits__are_those_of_one_row_and_thread_in_each_build(name: str, rows: int, threads: int) -> None:
    model = model_of(name)
    expected: list[Floats] = []
    for build_name, count, n in [("plain", 1, 1), *((each, threads, rows) for each in BUILDS)]:
        if build_name not in BUILDS:
            continue
        program, empty = model.step_program("fp32"), torch.zeros(n, model.vocab_size)
        assert program is not None
        steps = CompiledSteps(program, BUILDS[build_name], model.initial_state(n), empty)
        read: list[Floats] = []
        with using_threads(count):
            for token_id in (2, 5, 9, 8, 6):
                steps.read([token_id] * n, range(n))
                read.append(steps.logits.copy())
        expected = expected or read
        for found, alone in zip(read, expected, strict=True):
            np.testing.assert_array_equal(found, alone.repeat(n, axis=0))


@compiled
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_a_line__is_read_alike_by_any_number_of_threads(name: str) -> None:
    config, objective = config_of(name)
    model = build(changed(config, hidden_size=128), VOCABULARY, objective).eval()  # each thread has some outputs
    program, read = model.step_program("fp32"), list[Floats]()
    assert program is not None
    for threads in (1, 3, *[2] * 8):
        steps = CompiledSteps(program, builds()[-1], model.initial_state(1), torch.zeros(1, model.vocab_size))
        with using_threads(threads):
            steps.read_line([7 * place % model.vocab_size for place in range(POSITIONS)], 0)
        read.append(steps.logits)
    for found in read:
        np.testing.assert_array_equal(found, read[0])


def doubles_of(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double)


LOGITS: st.SearchStrategy[float] = st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])


TOKENS = st.tuples(st.one_of(LOGITS, st.floats(-50, 50, width=32)), st.booleans())


@for_all_pairs(st.lists(TOKENS, min_size=1, max_size=40), st.floats(0, 1, exclude_max=True))
def test_choice__equals_the_sampler(tokens: list[tuple[float, bool]], draw: float) -> None:
    """Of equal logits, infinite ones, NaN, barred tokens and every temperature."""
    numbers = [logit for logit, _ in tokens]
    flags = [is_barred and token_id > 0 for token_id, (_, is_barred) in enumerate(tokens)]  # one may be chosen
    logits, barred = doubles_of([numbers]).float(), torch.tensor(flags, dtype=torch.bool)
    allowed = doubles(logits.double().masked_fill(barred, -math.inf))
    program = StepProgram(len(tokens))
    program.states = [[]]
    program.embed(torch.zeros(len(tokens), 1), program.floats(1))
    for temperature in (0.0, 1e-9, 0.001, 0.7, 1.0, 3.0):
        with np.errstate(invalid="ignore"):
            expected = choose(allowed, GenerateRequest(prompt_text="a", temperature=temperature), [draw])
        choices = Choices(doubles_of([[draw]]), doubles_of([[temperature]]), [barred], -1)
        for each in BUILDS.values():
            steps = CompiledSteps(program, each, (torch.zeros(0, 1, 1),), logits)
            assert steps.write(choices) == [expected]


@compiled
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_written_tokens__are_those_of_single_steps_up_to_an_end(name: str) -> None:
    model, random = model_of(name), Random(4)
    state, logits = after(model, (1, 2, 3), random)
    draws = torch.rand(3, 20, dtype=torch.double, generator=torch.Generator().manual_seed(5))
    barred = [torch.zeros(model.vocab_size, dtype=torch.bool) for _ in range(3)]
    choices = Choices(draws, doubles_of([[0.0, 1.0, 2.0]]), barred, 3)
    at_once, one_by_one = model.steps(state, logits), model.steps(state, logits)
    assert isinstance(at_once, CompiledSteps) and isinstance(one_by_one, CompiledSteps)
    by_row = at_once.write(choices)
    written = [[row[step] for row in by_row] for step in range(len(by_row[0]))]
    last: list[int] | None = None
    for step, ids in enumerate(written):
        chosen = one_by_one.write(choices._replace(draws=draws[:, step : step + 1].contiguous()), last)
        last = [each for [each] in chosen]
        assert last == ids
    assert len(written) == 20 or 3 in written[-1]
    assert all(3 not in ids for ids in written[:-1])
    np.testing.assert_array_equal(at_once.logits, one_by_one.logits)


@compiled
def test_ids_and_tokens__out_of_bounds_are_refused() -> None:
    model = model_of("gpt2")
    steps = model.steps(*after(model, (POSITIONS,), Random(5)))
    for token_id in (-1, model.vocab_size):
        with pytest.raises(ValueError, match="Expected ids from 0 to 12"):
            steps.read([token_id], [0])
    with pytest.raises(ValueError, match="Expected 24 tokens at most, got 25"):
        steps.read([1], [0])


@pytest.mark.parametrize("name", ["lstm", "gpt2"])
def test_fork__continues_by_itself(name: str) -> None:
    model, random = model_of(name), Random(6)
    state, logits = after(model, (2,), random)
    steps = model.steps(state, logits)
    fork = steps.fork()
    steps.read([7], [0])
    compare(fork, model, state, logits, random)
    assert fork.memory_bytes() >= logits.nbytes


@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_copies_of_weights__are_created_once_counted_and_dropped_by_training(name: str) -> None:
    model, random = model_of(name), Random(8)
    size = model.memory_bytes()
    state, logits = after(model, (2,), random)
    for precision in PRECISIONS:
        compare(model.steps(state, logits, "fp32"), model, state, logits, random)
        model.steps(state, logits, precision)
    assert size < model.memory_bytes() < 5 * size
    with torch.no_grad():
        model.train().input_embedding().weight.mul_(2)
    assert model.memory_bytes() == size
    state, logits = after(model.eval(), (2,), random)
    compare(model.steps(state, logits), model, state, logits, random)


@pytest.mark.parametrize("name", ["lstm", "gpt2"])
def test_library_that_is_missing__leaves_the_forward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "builds", tuple)
    model, random = model_of(name), Random(9)
    state, logits = after(model, (2, 4), random)
    steps = model.steps(state, logits)
    assert isinstance(steps, ForwardSteps)
    fork = steps.fork()
    compare(fork, model, state, logits, random)
    in_bf16, again = (model.steps(state, logits, "bf16") for _ in range(2))
    for each in (in_bf16, again, steps):
        each.read([7, 7], [0, 1])
    np.testing.assert_array_equal(again.logits, in_bf16.logits)
    np.testing.assert_allclose(in_bf16.logits, steps.logits, atol=0.5)
    assert not np.array_equal(in_bf16.logits, steps.logits)
    assert model.memory_bytes() > sum(weight.nbytes for weight in model.parameters())
    assert steps.memory_bytes() >= logits.nbytes


def test_steps_on_another_device__are_those_of_the_forward_pass() -> None:
    model = model_of("lstm").to("meta")
    assert isinstance(model.steps(model.initial_state(2), torch.zeros(2, 13)), ForwardSteps)
