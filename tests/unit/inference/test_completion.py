"""Completions: echoes against references and scores, offsets, ends, seeds, chunks and refusals."""

from collections.abc import Sequence
from itertools import pairwise
from unicodedata import normalize

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.support.answers import (
    BOS,
    EOS,
    LETTERS,
    WITH_MASK,
    WORD_START,
    Script,
    check_chunks,
    log_probabilities,
    score,
    scored_nats,
    small_tokenizer,
    spelling,
    write,
)
from tests.support.families import POSITIONS, model_of
from tests.support.library_models import library_twin
from tests.support.properties import for_all_pairs
from tests.support.reference import ReferenceModel
from tests.support.refusals import refused
from tests.support.tiny_models import small_model, tensor_of
from trainer.config.validation import parse
from trainer.contracts.completions import CompletionChoice, CompletionRequest, CompletionResponse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.tokenizers import METHODS
from trainer.inference.completion import CompletionJob, complete_together
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of


def job_of(
    model: LanguageModel, tokenizer: Tokenizer, values: dict[str, object], number: int = 0, *, is_streamed: bool = False
) -> CompletionJob:
    response = CompletionResponse(request_id=f"q{number}", run_id="run", status="queued")
    return CompletionJob(model, tokenizer, parse(CompletionRequest, values), response, is_streamed=is_streamed)


def complete(model: LanguageModel, tokenizer: Tokenizer = LETTERS, /, **values: object) -> CompletionResponse:
    [response] = complete_together(model, [job_of(model, tokenizer, values)])
    assert isinstance(response, CompletionResponse) and response.status == "completed"
    return response


def choices(model: LanguageModel, tokenizer: Tokenizer = LETTERS, /, **values: object) -> tuple[CompletionChoice, ...]:
    return complete(model, tokenizer, **values).choices or ()


def greedy(text: str, **values: object) -> CompletionChoice:
    """The likeliest continuation by a model that spells a text of different letters."""
    [choice] = choices(spelling(text), temperature=0, **values)
    return choice


def logprobs_of(choice: CompletionChoice) -> list[float]:
    """The log probabilities of the tokens that have one."""
    return [value for value in choice.token_logprobs or () if value is not None]


def cut(choice: CompletionChoice) -> list[str]:
    """Cut the text of a choice where its tokens begin."""
    assert choice.text_offset is not None
    return [choice.text[start:end] for start, end in pairwise([*choice.text_offset, len(choice.text)])]


PROMPTS: list[tuple[int, ...]] = [(2, 5, 9, 8, 3, 2, 6), (7,), (11, 12, 5, 5, 5, 6, 9, 8), tuple(range(5, 12)) * 3]
"""The model reads [BOS] before those that do not begin with it."""
Answers = dict[tuple[int, ...], list[list[float]]]


def reference_of(name: str) -> tuple[LanguageModel, Answers]:
    """A model, and ln p of the next token after each id of the prompts by the textbook or the transformers library."""
    after: Answers = {}
    model = small_model(vocabulary_of(WITH_MASK)) if name == "lstm" else model_of(name)
    for prompt in PROMPTS:
        ids = [*([] if prompt[0] == BOS else [BOS]), *prompt]
        if name == "lstm":
            answers = ReferenceModel(model, name).log_probabilities(ids)
        else:
            with torch.inference_mode():
                answers = library_twin(name, model)(tensor_of([ids])).logits[0].log_softmax(-1).tolist()
        after[prompt] = answers[-len(prompt) :]
    return model, after


@pytest.mark.parametrize("name", ["gpt2", "lstm"])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_echo__has_the_log_probabilities_of_the_reference(name: str, max_tokens: int) -> None:
    model, after = reference_of(name)
    found = choices(model, WITH_MASK, prompts=PROMPTS, echo=True, temperature=0, logprobs=3, max_tokens=max_tokens)
    for prompt, choice in zip(PROMPTS, found, strict=True):
        assert choice.tokens is not None and choice.token_logprobs is not None and choice.top_logprobs is not None
        assert list(choice.tokens[: len(prompt)]) == WITH_MASK.tokens(prompt)
        assert (choice.token_logprobs[0], choice.top_logprobs[0]) == (None, None)
        sampled = {token: p for token, p in enumerate(after[prompt][-1]) if token not in (0, 1, 2, 4)}
        following = [*prompt[1:], *([max(sampled, key=sampled.__getitem__)] if max_tokens else [])]
        for place, (token, log_p) in enumerate(zip(following, after[prompt], strict=False), 1):
            if prompt[place - 1 : place + 1] == (EOS, BOS):
                assert (choice.token_logprobs[place], choice.top_logprobs[place]) == (0, {"[BOS]": 0})
                continue
            best = sorted(range(len(log_p)), key=log_p.__getitem__, reverse=True)[:3]
            expected = {WITH_MASK.names[i]: log_p[i] for i in {*best, token}}
            assert choice.token_logprobs[place] == pytest.approx(log_p[token], abs=1e-4)
            assert choice.top_logprobs[place] == pytest.approx(expected, abs=1e-4)
        assert choice.prompt_tokens == len(prompt)
        assert len(choice.tokens) == choice.prompt_tokens + choice.completion_tokens
        assert choice.completion_tokens <= max_tokens


def test_echo__of_a_full_context_has_one_more_token_and_no_further_one() -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        model.input_embedding().weight[EOS] = 0  # it is never the likeliest
    prompt = [2, *[5, 6, 7] * POSITIONS][:POSITIONS]
    values: dict[str, object] = {"prompts": [prompt], "echo": True, "temperature": 0, "logprobs": 0}
    one, many = (choices(model, WITH_MASK, **values, max_tokens=count)[0] for count in (1, 9))
    assert one.tokens is not None and len(one.tokens) == POSITIONS + 1
    assert (one.tokens, one.text) == (many.tokens, many.text)
    assert one.finish_reason == many.finish_reason == "length"


STREAMS = [f"{method} stream" for method in ("char", "byte", "word", "bpe", "wordpiece")]
KINDS = [*METHODS, *STREAMS]


TOKENIZERS = {kind: small_tokenizer(*kind.split()) for kind in KINDS}
MODELS = {kind: small_model(vocabulary_of(tokenizer)) for kind, tokenizer in TOKENIZERS.items()}
_words = ["the sun", " ", "  ", "\n", "\r\n", "(his", "might)", '"', "ğ", "g\u0306", "Жx", "\u2581", ","]


@for_all_pairs(st.sampled_from(KINDS), st.lists(st.sampled_from(_words), max_size=8).map("".join))
def test_echo_of_a_text__is_cut_into_its_tokens_by_the_offsets(kind: str, prompt: str) -> None:
    tokenizer, model = TOKENIZERS[kind], MODELS[kind]
    [choice] = choices(model, tokenizer, prompts=[prompt], echo=True, logprobs=2, max_tokens=4, seed=1)
    assert choice.tokens is not None and choice.text_offset is not None
    assert choice.token_logprobs is not None and choice.top_logprobs is not None
    assert choice.text.startswith(normalize("NFC", prompt))
    lengths = {len(choice.tokens), len(choice.text_offset), len(choice.token_logprobs), len(choice.top_logprobs)}
    assert lengths == {choice.prompt_tokens + choice.completion_tokens}
    assert list(choice.text_offset) == sorted(choice.text_offset)
    assert not choice.text[: choice.text_offset[0]].strip()
    ids = [tokenizer.names.index(token) for token in choice.tokens]
    for token_id, piece in zip(ids, cut(choice), strict=True):
        assert token_id == tokenizer.special_ids.unk or tokenizer.texts[token_id].strip() in piece
        assert token_id != tokenizer.special_ids.eos or not piece.strip()
        assert token_id != tokenizer.special_ids.newline or (piece.count("\n"), piece.strip()) == (1, "")
    assert [value is None for value in choice.token_logprobs[:2]] == [choice.prompt_tokens > 0, False]
    for token, value, top in zip(choice.tokens, choice.token_logprobs, choice.top_logprobs, strict=True):
        if top is not None:
            assert top[token] == value and len(top) in (2, 3)
            assert next(iter(top.values())) == max(top.values())


@for_all_pairs(st.sampled_from(METHODS), st.lists(st.integers(0, 59), min_size=1, max_size=12))
def test_echo_of_ids__is_their_text_and_each_id_is_one_token(method: str, ids: list[int]) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    ids = [token_id % tokenizer.vocab_size for token_id in ids]
    [choice] = choices(model, tokenizer, prompts=[ids], echo=True, logprobs=0, max_tokens=0)
    assert choice.text == tokenizer.decode(ids)
    assert list(choice.tokens or ()) == tokenizer.tokens(ids)
    assert cut(choice) == tokenizer.pieces(ids)
    assert (choice.finish_reason, choice.prompt_tokens, choice.completion_tokens) == ("length", len(ids), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_echo__of_a_text_or_its_ids_has_the_log_probabilities_of_a_score(kind: str) -> None:
    tokenizer, model = TOKENIZERS[kind], MODELS[kind]
    text = "the sun was\n\nshining  on the sea." if kind in STREAMS else "the sun was shining  on the sea."
    scored = score(model, tokenizer, text)
    prompts = [text, tokenizer.encode(text), "", []]
    [choice, of_ids, *empty] = choices(model, tokenizer, prompts=prompts, echo=True, logprobs=1, temperature=0)
    assert choice.tokens is not None and choice.tokens[: choice.prompt_tokens] == scored.tokens
    assert (choice.token_logprobs or ())[0] is None
    found = logprobs_of(choice)
    assert found[: choice.prompt_tokens - 1] == pytest.approx([-nats for nats in scored_nats(scored)[1:]], abs=1e-5)
    assert of_ids.tokens == choice.tokens and logprobs_of(of_ids) == pytest.approx(found, abs=1e-5)
    assert empty[0].tokens and empty[1].tokens == empty[0].tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_space_at_the_end_of_a_text__belongs_to_the_next_token_if_it_is_continued(kind: str, max_tokens: int) -> None:
    tokenizer, model = TOKENIZERS[kind], MODELS[kind]
    start, prompt = WORD_START.get(kind.split()[0]), "the sun was "
    values: dict[str, object] = {"echo": True, "logprobs": 2, "temperature": 0, "max_tokens": max_tokens}
    of_text, of_ids = choices(model, tokenizer, prompts=[prompt, tokenizer.encode(prompt)], **values)
    assert of_text.tokens is not None and of_text.text_offset is not None
    if max_tokens == 0 or start is None:
        assert of_text.tokens == of_ids.tokens and logprobs_of(of_text) == pytest.approx(logprobs_of(of_ids))
    count, ids = of_text.prompt_tokens, [tokenizer.names.index(token) for token in of_text.tokens]
    assert ids[:count] == tokenizer.encode(prompt.rstrip() if start and max_tokens else prompt)
    rows = log_probabilities(model, [tokenizer.special_ids.start, *ids[:-1]])
    expected = [row[token_id] for row, token_id in zip(rows, ids, strict=True)]
    assert logprobs_of(of_text) == pytest.approx(expected[1:], abs=1e-4)
    generated = write(model, tokenizer, prompt_text=prompt, max_new_tokens=max(1, max_tokens), temperature=0)
    assert of_text.text == prompt + (generated.outputs or ("",))[0] * (max_tokens > 0)
    if max_tokens and (start or kind.startswith("word")):
        assert start is None or of_text.tokens[count].startswith(start)
        assert of_text.text_offset[count] == len(prompt) - of_text.text.startswith(
            f"{prompt}{tokenizer.texts[ids[count]].strip()}"
        )
        [alone] = choices(model, tokenizer, prompts=[prompt], **{**values, "echo": False})
        assert alone.text_offset is not None and alone.text_offset[0] == 0


@pytest.mark.parametrize("method", METHODS)
def test_echo_of_lines__equals_the_echo_of_their_ids_with_ends_for_newlines(method: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    text, special_ids = "the sun was\n\nshining  on\n  the sea.", tokenizer.special_ids
    opening = [] if special_ids.bos is None else [special_ids.bos]
    lines = [tokenizer.encode(line) for line in text.split("\n") if line]
    ids = [token_id for line in lines for token_id in (*opening, *line, special_ids.eos)][:-1]
    ids = ids if opening else [special_ids.start, *ids]
    values: dict[str, object] = {"echo": True, "logprobs": 1, "max_tokens": 0}
    of_text, of_ids = (choices(model, tokenizer, prompts=[prompt], **values)[0] for prompt in (text, ids))
    assert of_text.tokens is not None and of_text.token_logprobs is not None and of_text.text_offset is not None
    assert of_ids.tokens is not None and of_ids.token_logprobs is not None
    shown = [place for place, token_id in enumerate(ids) if place and token_id != special_ids.bos]
    assert of_text.tokens == tuple(of_ids.tokens[place] for place in shown)
    assert of_text.token_logprobs[1:] == tuple(of_ids.token_logprobs[place] for place in shown[1:])
    assert all(of_ids.token_logprobs[place] == 0 for place in range(1, len(ids)) if place not in shown)
    ends = [place for place, token in enumerate(of_text.tokens) if token == tokenizer.names[special_ids.eos]]
    assert [text[of_text.text_offset[place]] for place in ends] == ["\n", "\n"]
    assert of_text.text == text


def test_continuations__are_those_of_a_generation_with_the_same_seed() -> None:
    model = small_model(vocabulary_of(LETTERS))
    options: dict[str, object] = {"seed": 4, "temperature": 1.3, "top_p": 0.9}
    values: dict[str, object] = {"prompt_text": "ab\nc", "num_return_sequences": 3, "max_new_tokens": 20}
    expected = write(model, **values, logprobs=True, **options)
    response = complete(model, prompts=["ab\nc"], n=3, max_tokens=20, logprobs=0, **options)
    assert response.choices is not None and response.seed_used == 4
    assert tuple(choice.text for choice in response.choices) == expected.outputs
    assert tuple(choice.token_logprobs for choice in response.choices) == expected.logprobs
    assert tuple(choice.completion_tokens for choice in response.choices) == expected.steps
    assert (response.prompt_tokens, response.completion_tokens) == (4, sum(expected.steps or ()))
    assert [choice.index for choice in response.choices] == [0, 1, 2]


def test_continuation__depends_only_on_the_seed_its_prompt_and_its_number() -> None:
    model = small_model(vocabulary_of(LETTERS))
    fixed: dict[str, object] = {"seed": 9, "max_tokens": 12}
    many, again = (choices(model, prompts=["abc", "abc", "hg", [5, 6]], n=3, **fixed) for _ in range(2))
    others = choices(model, prompts=["h", "abc", [4], [5, 6]], n=2, **fixed)
    assert many == again
    assert [many[place].text for place in (3, 4, 9, 10)] == [others[place].text for place in (2, 3, 6, 7)]
    assert many[0].text != many[3].text
    assert complete(model, prompts=["abc"], max_tokens=1).seed_used is not None


def test_many_continuations__are_generated_in_groups_and_stay_in_order() -> None:
    model = Script({token: token + 1 for token in range(4, 11)})
    prompts = [f"{letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    found = choices(model, prompts=prompts, n=2, temperature=0, max_tokens=2, echo=True)
    expected = [text + "abcdefgh"[ord(text[1]) - ord("a") + 1 :][:2] for text in prompts]
    assert [choice.text for choice in found] == [text for text in expected for _ in range(2)]
    assert [choice.index for choice in found] == list(range(128))


@pytest.mark.parametrize(
    ("prompt", "echo", "max_tokens", "text", "tokens", "offsets"),
    [
        ("h", False, 9, "gf", ("g", "f", "[EOS]"), (0, 1, 2)),
        ("h", True, 9, "hgf", ("h", "g", "f", "[EOS]"), (0, 1, 2, 3)),
        ([BOS, *LETTERS.encode("hgf")], True, 1, "hgf", ("[BOS]", "h", "g", "f", "[EOS]"), (0, 0, 1, 2, 3)),
        ("", True, 9, "hgf", ("h", "g", "f", "[EOS]"), (0, 1, 2, 3)),
    ],
)
def test_end_of_line__stops_and_is_a_token_without_a_text(
    prompt: object, echo: bool, max_tokens: int, text: str, tokens: tuple[str, ...], offsets: tuple[int, ...]
) -> None:
    choice = greedy("hgf", prompts=[prompt], echo=echo, logprobs=0, max_tokens=max_tokens)
    assert (choice.text, choice.finish_reason, choice.tokens) == (text, "stop", tokens)
    assert choice.text_offset == offsets
    assert choice.prompt_tokens == len(prompt if isinstance(prompt, Sequence) else ())
    assert logprobs_of(choice)[-choice.completion_tokens :] == pytest.approx([0] * choice.completion_tokens, abs=1e-6)


@pytest.mark.parametrize(
    ("stop", "max_tokens", "text"),
    [(["d"], 8, "bc"), (["cd", "x"], 8, "b"), (["b"], 8, ""), (["b"], 1, ""), (["ab"], 8, "bcdefgh")],
)
def test_stop_text__is_cut_off_with_its_tokens(stop: list[str], max_tokens: int, text: str) -> None:
    for echo, shown in ((False, text), (True, f"a{text}")):
        choice = greedy("abcdefgh", prompts=["a"], logprobs=0, stop=stop, max_tokens=max_tokens, echo=echo)
        assert (choice.text, choice.finish_reason) == (shown, "stop")
        assert "".join(choice.tokens or ()).removesuffix("[EOS]") == shown


def test_greedy_token__of_equals_has_the_lowest_id_and_is_never_special() -> None:
    model = Script({})
    model.table[:] = 0.0
    model.table[:, :3] = 5.0
    model.table[:, EOS] = -5.0
    for echo, expected in ((True, "ba"), (False, "a")):
        [choice] = choices(model, prompts=[[5]], temperature=0, echo=echo, logprobs=int(echo), max_tokens=1)
        assert choice.text == expected


def test_lists__are_none_unless_requested() -> None:
    choice = greedy("ab", prompts=["a"], echo=True)
    assert (choice.tokens, choice.token_logprobs, choice.top_logprobs, choice.text_offset) == (None,) * 4


class Counting(Script):
    """Counts its passes over sequences; has a limited context."""

    context_tokens: int | None = 512
    passes = 0

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.passes += 1
        return super().hidden_states(ids, lengths)


def test_many_prompts__are_scored_side_by_side() -> None:
    limited, unlimited = Counting({}), Counting({})
    unlimited.context_tokens = None
    prompts = [[4 + (number + place) % 8 for place in range(511)] for number in range(8)]
    values: dict[str, object] = {"temperature": 0, "echo": True, "logprobs": 1, "max_tokens": 1}
    found = [choices(model, prompts=prompts, **values) for model in (limited, unlimited)]
    assert found[0] == found[1] and len(found[0]) == 8
    assert (limited.passes, unlimited.passes) == (4, 1)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ([3, 11, 12], "`prompts`: the token id 12 is not in the vocabulary of 12 tokens."),
        ([5] * 24, "a prompt has 25 tokens, and this model reads at most 24"),
        ([2] + [5] * 24, "a prompt has 25 tokens, and this model reads at most 24"),
        ("a" * 24, "a prompt has 25 tokens, and this model reads at most 24"),
    ],
)
def test_prompt_that_the_model_cannot_read__is_refused(prompt: object, sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        job_of(model_of("gpt2"), LETTERS, {"prompts": ["a", prompt], "echo": True, "max_tokens": 0})


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 20])
def test_chunks__are_the_text_of_their_choice(echo: bool, max_tokens: int) -> None:
    model = small_model(vocabulary_of(LETTERS))
    values: dict[str, object] = {"prompts": ["abc", "", [4, 5]], "n": 2, "seed": 3, "stop": ["ab", "hg"]}
    job = job_of(model, LETTERS, {**values, "echo": echo, "max_tokens": max_tokens}, is_streamed=True)
    *chunks, response = complete_together(model, [job])
    assert isinstance(response, CompletionResponse) and response.choices is not None
    for choice in response.choices:
        check_chunks(chunks, choice.index, choice.text)


def test_requests_together__are_answered_as_alone_or_withdrawn() -> None:
    model = small_model(vocabulary_of(LETTERS))
    requests: list[dict[str, object]] = [
        {"prompts": ["abc", "h"], "seed": 1, "n": 2, "max_tokens": 9},
        {"prompts": ["a"] * 40, "n": 4, "seed": 2, "max_tokens": 40},
        {"prompts": ["abc", [5]], "seed": 3, "logprobs": 50, "echo": True, "max_tokens": 0},
        {"prompts": ["ab", [6]], "seed": 4, "logprobs": 1, "echo": True, "max_tokens": 5},
    ]
    jobs = [job_of(model, LETTERS, values, n, is_streamed=n == 1) for n, values in enumerate(requests)]
    answers = list(complete_together(model, jobs, withdrawn=lambda: {"q1"}))
    ended = {answer.request_id: answer for answer in answers if isinstance(answer, CompletionResponse)}
    assert len(ended) == 4 and len(answers) < 300
    assert ended["q1"].status == "failed" and ended["q1"].choices is None
    assert ended["q1"].error is not None and ended["q1"].error.code is ErrorCode.CANCELLED
    for number in (0, 2, 3):
        alone = choices(model, **requests[number])
        for one, other in zip(ended[f"q{number}"].choices or (), alone, strict=True):
            assert (one.text, one.tokens, one.text_offset) == (other.text, other.tokens, other.text_offset)
            assert logprobs_of(one) == pytest.approx(logprobs_of(other), abs=1e-5)
