"""Options of generation: log-probabilities, allowed characters, banned tokens, streamed chunks."""

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch

from tests.support.families import CAUSAL, model_of
from tests.support.tiny_models import POEM, char_tokenizer, doubles, floats, small_model, tensor_of, tokenizer_of
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateChunk, GenerateRequest, GenerateResponse
from trainer.contracts.tokenizers import METHODS
from trainer.inference.generation import GenerationJob, generate, generate_together
from trainer.inference.sampling import choose, possible_tokens
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

TOKENIZER = char_tokenizer(["abcdefgh"], mask_token=True)
BOS, EOS = 2, 3
SEPARATED: list[list[float]] = [[1.0, 1.0 + 1e-6, 0.5]]
LINES = [*POEM, "Ağaç, ёлка: “quoted” (twice) 1871."]


def request_of(**values: object) -> GenerateRequest:
    return parse(GenerateRequest, {"prompt_text": "", **values})


def written(model: LanguageModel, tokenizer: Tokenizer = TOKENIZER, **values: object) -> GenerateResponse:
    return generate(model, tokenizer, request_of(**values), run_id="run", request_id="request")


def model_for(tokenizer: Tokenizer) -> LanguageModel:
    """One whose tokens are all about as likely, and that ends no line soon."""
    return small_model(vocabulary_of(tokenizer))


def tokenizer_by(method: str) -> Tokenizer:
    sized = method not in ("char", "byte")
    return tokenizer_of(method, LINES, vocab_size=120) if sized else tokenizer_of(method, LINES)


@pytest.mark.parametrize("prompt", ["abc", ""])
@pytest.mark.parametrize("name", CAUSAL)
def test_logprobs__are_the_models_own_of_one_whole_forward_pass_whatever_was_filtered(name: str, prompt: str) -> None:
    model = model_of(name)

    found = written(
        model,
        prompt_text=prompt,
        max_new_tokens=12,
        num_return_sequences=3,
        seed=2,
        temperature=1.7,
        top_k=5,
        repetition_penalty=1.3,
        logprobs=True,
    )

    assert found.logprobs is not None and found.outputs is not None and found.steps is not None
    for text, steps, logprobs in zip(found.outputs, found.steps, found.logprobs, strict=True):
        sampled = [*TOKENIZER.encode(text), EOS][:steps]
        ids = [BOS, *TOKENIZER.encode(prompt), *sampled]
        with torch.inference_mode():
            answers = model.forward(tensor_of([ids]))[0].double().log_softmax(-1)
        expected = [float(answers[place, following]) for place, (_, following) in enumerate(pairwise(ids))]
        assert len(logprobs) == steps
        assert logprobs == pytest.approx(expected[-steps:], abs=1e-4)
    assert written(model).logprobs is None


@pytest.mark.parametrize("name", ["gru", "gpt2"])
def test_draws__of_a_model_follow_the_exact_filtered_softmax(name: str) -> None:
    """Pearson's chi-square of 20,000 draws after a prompt; its tail is the regularized upper gamma function."""
    model, count = model_of(name), 20_000
    ids = tensor_of([[BOS, *TOKENIZER.encode("abca")]])
    with torch.inference_mode():
        whole: list[float] = model.forward(ids)[0, -1].tolist()
        _, state = model.forward_with_state(ids[:, :-1], model.initial_state(1))
        stepwise = model.forward_with_state(ids[:, -1:], state)[0][0].double()
    weights = {token: math.exp(logit / 1.4) for token, logit in enumerate(whole)}
    likeliest = sorted(weights, key=weights.__getitem__, reverse=True)[:9]
    share = 0.8 * sum(weights[token] for token in likeliest)
    kept = next(n for n in range(1, 10) if sum(weights[token] for token in likeliest[:n]) >= share)
    total = sum(weights[token] for token in likeliest[:kept])
    expected = {token: count * weights[token] / total for token in likeliest[:kept]}

    draws = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    options = request_of(temperature=1.4, top_k=9, top_p=0.8)
    drawn = Counter(choose(doubles(stepwise.expand(count, -1)), options, floats(draws)))

    assert set(drawn) == set(expected) and 3 < len(expected) < 9
    statistic = sum((drawn[token] - mean) ** 2 / mean for token, mean in expected.items())
    half_freedom = torch.tensor((len(expected) - 1) / 2, dtype=torch.float64)
    tail: torch.Tensor = torch.special.gammaincc(half_freedom, torch.tensor(statistic / 2, dtype=torch.float64))
    assert tail.item() > 1e-4


def test_temperature__that_is_colder_than_a_millionth_is_taken_for_one() -> None:
    logits = torch.tensor(SEPARATED, dtype=torch.float64)
    weights, _ = possible_tokens(doubles(logits), request_of(temperature=1e-9))
    found: list[float] = weights.flatten().tolist()
    assert found == pytest.approx([math.exp(-1), 1, 0], abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_alphabet__only_its_letters_are_written_by_every_tokenizer(method: str) -> None:
    tokenizer = tokenizer_by(method)
    model = model_for(tokenizer)

    def text(alphabet: str, *, stop_on_eos: bool) -> str:
        values: dict[str, object] = {"seed": 2, "max_new_tokens": 40, "num_return_sequences": 10, "top_k": 0}
        request = request_of(alphabet=alphabet, stop_on_eos=stop_on_eos, temperature=3.0, **values)
        return "".join(generate(model, tokenizer, request, run_id="r", request_id="r").outputs or ())

    letters = set("ehistw ")
    assert set(text("ehistw ", stop_on_eos=True)) <= letters
    assert set(text("ehistw \n", stop_on_eos=False)) - letters == {"\n"}
    endless = text("ehistw ", stop_on_eos=False)
    assert set(endless) <= letters and len(endless) >= 400


def test_alphabet__letters_may_be_typed_in_any_form() -> None:
    tokenizer = tokenizer_by("char")
    found = written(model_for(tokenizer), tokenizer, alphabet="g\u0306", stop_on_eos=False, max_new_tokens=40, seed=1)
    assert set("".join(found.outputs or ())) == set("gğ")


@pytest.mark.parametrize("method", METHODS)
def test_banned_tokens__never_occur_nor_do_special_ones(method: str) -> None:
    tokenizer = tokenizer_by(method)
    names = tokenizer.tokens(range(tokenizer.vocab_size))
    unknown = names[tokenizer.special_ids.unk]
    banned = [text.removeprefix(" ") for text in tokenizer.texts if text.strip()][::3][:60]
    forbidden = {i for i, text in enumerate(tokenizer.texts) if text.removeprefix(" ") in banned}
    request = request_of(banned_tokens=[*banned, unknown], seed=1, max_new_tokens=100, stop_on_eos=False)
    response = GenerateResponse(request_id="r", run_id="run", status="queued")
    asked = GenerationJob(model_for(tokenizer), tokenizer, request, response)
    [_] = generate_together(model_for(tokenizer), [asked])
    sampled = asked.sequences[0].context[len(asked.prompt.ids) :]
    assert len(set(sampled)) > 15
    assert not forbidden.intersection(sampled)
    assert not set(tokenizer.special_ids.never_sampled).intersection(sampled)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"alphabet": "xyz"}, "`alphabet` and `banned_tokens` leave this model no token to write: allow more."),
        ({"banned_tokens": list("abcdefgh")}, "leave this model no token to write"),
        ({"alphabet": "ab", "banned_tokens": ["a", "b"]}, "leave this model no token to write"),
        ({"banned_tokens": ["the"]}, "`banned_tokens`: 'the' is no token of this model"),
    ],
)
def test_nothing_left_to_write__is_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(AppError) as caught:
        generate(model_of("gru"), TOKENIZER, request_of(**values), run_id="run", request_id="request")
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert sentence in caught.value.message


def streamed(
    model: LanguageModel, tokenizer: Tokenizer, *requests: GenerateRequest, gone: tuple[str, ...] = ()
) -> list[GenerateChunk | GenerateResponse]:
    """Write with pieces; `gone` are the requests that are withdrawn after the first token."""
    continuations = [
        GenerationJob(
            model,
            tokenizer,
            request,
            GenerateResponse(request_id=f"r{number}", run_id="run", status="queued"),
            is_streamed=True,
        )
        for number, request in enumerate(requests)
    ]
    return list(generate_together(model, continuations, withdrawn=lambda: gone))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stops", [[], ["th", "the s", "e", "\nw"], ["s w", "ing"]])
def test_pieces__in_their_order_are_the_output_and_never_a_part_of_a_stop(method: str, stops: list[str]) -> None:
    tokenizer = tokenizer_by(method)
    request = request_of(
        prompt_text="the sun",
        stop_sequences=stops,
        seed=3,
        max_new_tokens=50,
        num_return_sequences=6,
        stop_on_eos=False,
    )

    *pieces, response = streamed(model_for(tokenizer), tokenizer, request)

    assert isinstance(response, GenerateResponse) and response.outputs is not None and response.stop_reason is not None
    assert response == generate(model_for(tokenizer), tokenizer, request, run_id="run", request_id="r0")
    for index, (output, reason) in enumerate(zip(response.outputs, response.stop_reason, strict=True)):
        told = [piece for piece in pieces if isinstance(piece, GenerateChunk) and piece.index == index]
        assert "".join(piece.text for piece in told) == output
        assert [piece.start for piece in told] == [sum(len(p.text) for p in told[:n]) for n in range(len(told))]
        assert [piece.stop_reason for piece in told] == [None] * (len(told) - 1) + [reason]
        assert all(piece.text for piece in told[:-1])


def test_pieces__wait_while_a_stop_may_come_and_no_longer() -> None:
    """Of what is written letter by letter, `ab` is told only when it is clear that no `abc` comes of it."""
    request = request_of(stop_sequences=["abc"], seed=5, max_new_tokens=400, stop_on_eos=False, alphabet="abc")
    *pieces, response = streamed(model_of("gru"), TOKENIZER, request)
    assert isinstance(response, GenerateResponse) and response.stop_reason == ("stop_sequence",)
    whole = "".join(response.outputs or ()) + "abc"
    told = [piece.start + len(piece.text) for piece in pieces if isinstance(piece, GenerateChunk)]
    held = [next((n for n in (2, 1) if whole[:t].endswith("ab"[:n])), 0) for t in range(1, len(whole))]
    expected = sorted({t - n for t, n in enumerate(held, 1)} - {0})
    assert len(expected) > 5
    assert told == [*expected, len(whole) - 3]


def test_withdrawn__ends_after_the_token_at_hand_and_leaves_the_others_as_they_are() -> None:
    model = model_of("lstm")
    requests = [request_of(seed=n, max_new_tokens=30, stop_on_eos=False, num_return_sequences=2) for n in range(3)]
    answers = streamed(model, TOKENIZER, *requests, gone=("r1",))
    ended = {answer.request_id: answer for answer in answers if isinstance(answer, GenerateResponse)}
    assert ended["r1"].status == "failed" and ended["r1"].outputs is None
    assert ended["r1"].error is not None and ended["r1"].error.code is ErrorCode.CANCELLED
    assert sum(isinstance(answer, GenerateChunk) and answer.request_id == "r1" for answer in answers) == 2
    for n in (0, 2):
        assert ended[f"r{n}"] == generate(model, TOKENIZER, requests[n], run_id="run", request_id=f"r{n}")
