"""Completions: tokens and offsets of every tokenizer, ends, seeds, streams and refusals."""

from itertools import pairwise
from unicodedata import normalize

import pytest
from hypothesis import strategies as st
from torch import Tensor

from tests.support.families import model_of
from tests.support.properties import for_all_pairs
from tests.support.tiny_models import POEM, char_tokenizer, small_model, tokenizer_of
from tests.unit.inference.test_generation import Script
from trainer.contracts.completions import CompletionChoice, CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateChunk, GenerateRequest, ScoreRequest, ScoreResponse
from trainer.contracts.tokenizers import METHODS
from trainer.inference.completion import CompletionJob, complete_together
from trainer.inference.generation import generate
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.models.base import LanguageModel
from trainer.tokenizers.base import Tokenizer, vocabulary_of

TOKENIZER = char_tokenizer(["abcdefgh"])
BOS, EOS = 2, 3
LINES = [*POEM, "Ağaç, ёлка: “quoted” (twice) 1871."]


def job_of(
    model: LanguageModel,
    values: dict[str, object],
    tokenizer: Tokenizer = TOKENIZER,
    *,
    request_id: str = "q",
    is_streamed: bool = False,
) -> CompletionJob:
    response = CompletionResponse(request_id=request_id, run_id="run", status="queued")
    return CompletionJob(model, tokenizer, parse(CompletionRequest, values), response, is_streamed=is_streamed)


def completed(model: LanguageModel, tokenizer: Tokenizer = TOKENIZER, /, **values: object) -> CompletionResponse:
    [response] = complete_together(model, [job_of(model, values, tokenizer)])
    assert isinstance(response, CompletionResponse) and response.status == "completed"
    return response


def choices_of(
    model: LanguageModel, tokenizer: Tokenizer = TOKENIZER, /, **values: object
) -> tuple[CompletionChoice, ...]:
    return completed(model, tokenizer, **values).choices or ()


def spelled(text: str, then: int = EOS) -> Script:
    """A model that writes this text of different letters after [BOS]."""
    return Script(dict(pairwise([BOS, *TOKENIZER.encode(text), then])))


def _tokenizer(method: str) -> Tokenizer:
    sized = method not in ("char", "byte", "word")
    return tokenizer_of(method, LINES, vocab_size=120) if sized else tokenizer_of(method, LINES)


TOKENIZERS: dict[str, Tokenizer] = {method: _tokenizer(method) for method in METHODS}
MODELS: dict[str, LanguageModel] = {
    method: small_model(vocabulary_of(tokenizer)) for method, tokenizer in TOKENIZERS.items()
}


def cut(choice: CompletionChoice) -> list[str]:
    """Cut the text of a choice where its tokens begin."""
    assert choice.text_offset is not None
    return [choice.text[start:end] for start, end in pairwise([*choice.text_offset, len(choice.text)])]


_words = st.sampled_from(
    ["the sun", " ", "  ", "\n", "\r\n", "(his", "might)", '"', "ğ", "g\u0306", "Жx", "\u2581", ","]
)
prompt_texts = st.lists(_words, max_size=8).map("".join)


@for_all_pairs(st.sampled_from(METHODS), prompt_texts)
def test_echo_of_a_text__is_cut_into_its_tokens_by_the_offsets(method: str, prompt: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]

    [choice] = choices_of(model, tokenizer, prompts=[prompt], echo=True, logprobs=2, max_tokens=4, seed=1)

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
    assert [value is None for value in choice.token_logprobs[:2]] == [choice.prompt_tokens > 0, False]
    for token, value, top in zip(choice.tokens, choice.token_logprobs, choice.top_logprobs, strict=True):
        assert top is None or (
            top[token] == value and len(top) in (2, 3) and next(iter(top.values())) == max(top.values())
        )


@for_all_pairs(st.sampled_from(METHODS), st.lists(st.integers(0, 59), min_size=1, max_size=12))
def test_echo_of_ids__is_their_text_and_each_id_is_one_token(method: str, ids: list[int]) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    ids = [token_id % tokenizer.vocab_size for token_id in ids]
    [choice] = choices_of(model, tokenizer, prompts=[ids], echo=True, logprobs=0, max_tokens=0)
    assert choice.text == tokenizer.decode(ids)
    assert list(choice.tokens or ()) == tokenizer.tokens(ids)
    assert cut(choice) == tokenizer.pieces(ids)
    assert (choice.finish_reason, choice.prompt_tokens, choice.completion_tokens) == ("length", len(ids), 0)


@pytest.mark.parametrize("method", METHODS)
def test_echo__of_a_text_or_its_ids_has_the_log_probabilities_of_a_score(method: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    text = "the sun was shining  on the sea."
    request = ScoreRequest(text=text, detail_level="per_char")
    queued = ScoreResponse(request_id="q", run_id="run", status="queued")
    [score] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, request, queued)])

    prompts = [text, tokenizer.encode(text), "", []]
    [choice, of_ids, *empty] = choices_of(model, tokenizer, prompts=prompts, echo=True, logprobs=1, temperature=0)

    assert score.surprisal is not None and choice.token_logprobs is not None
    assert choice.tokens is not None and choice.tokens[: choice.prompt_tokens] == score.tokens
    assert choice.token_logprobs[0] is None
    found = [-value for value in choice.token_logprobs[: choice.prompt_tokens] if value is not None]
    assert found == pytest.approx(score.surprisal[1:], abs=1e-5)
    assert of_ids.tokens == choice.tokens and of_ids.token_logprobs is not None
    assert of_ids.token_logprobs[1:] == pytest.approx(choice.token_logprobs[1:], abs=1e-5)
    assert empty[0].tokens and empty[1].tokens == empty[0].tokens


@pytest.mark.parametrize("method", METHODS)
def test_echo_of_lines__is_that_of_their_ids_with_an_end_token_for_each_newline(method: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    text, special_ids = "the sun was\n\nshining  on\n  the sea.", tokenizer.special_ids
    opening = [] if special_ids.bos is None else [special_ids.bos]
    lines = [tokenizer.encode(line) for line in text.split("\n") if line]
    ids = [token_id for line in lines for token_id in (*opening, *line, special_ids.eos)][:-1]
    ids = ids if opening else [special_ids.start, *ids]

    values: dict[str, object] = {"echo": True, "logprobs": 1, "max_tokens": 0}
    [of_text] = choices_of(model, tokenizer, prompts=[text], **values)
    [of_ids] = choices_of(model, tokenizer, prompts=[ids], **values)

    assert of_text.tokens is not None and of_text.token_logprobs is not None and of_text.text_offset is not None
    assert of_ids.tokens is not None and of_ids.token_logprobs is not None
    shown = [place for place, token_id in enumerate(ids) if place and token_id != special_ids.bos]
    assert of_text.tokens == tuple(of_ids.tokens[place] for place in shown)
    assert of_text.token_logprobs[1:] == tuple(of_ids.token_logprobs[place] for place in shown[1:])
    ends = [place for place, token in enumerate(of_text.tokens) if token == tokenizer.names[special_ids.eos]]
    assert [text[of_text.text_offset[place]] for place in ends] == ["\n", "\n"]
    assert of_text.text == text


def test_continuations__are_those_of_a_generation_with_the_same_seed() -> None:
    model = small_model(vocabulary_of(TOKENIZER))
    options: dict[str, object] = {"seed": 4, "temperature": 1.3, "top_p": 0.9}
    request = parse(
        GenerateRequest,
        {"prompt_text": "ab\nc", "num_return_sequences": 3, "max_new_tokens": 20, "logprobs": True, **options},
    )
    expected = generate(model, TOKENIZER, request, run_id="run", request_id="q")
    response = completed(model, prompts=["ab\nc"], n=3, max_tokens=20, logprobs=0, **options)
    assert response.choices is not None and response.seed_used == 4
    assert tuple(choice.text for choice in response.choices) == expected.outputs
    assert tuple(choice.token_logprobs for choice in response.choices) == expected.logprobs
    assert tuple(choice.completion_tokens for choice in response.choices) == expected.steps
    assert (response.prompt_tokens, response.completion_tokens) == (4, sum(expected.steps or ()))
    assert [choice.index for choice in response.choices] == [0, 1, 2]


def test_continuation__depends_only_on_the_seed_its_prompt_and_its_number() -> None:
    model = small_model(vocabulary_of(TOKENIZER))
    fixed: dict[str, object] = {"seed": 9, "max_tokens": 12}
    many = choices_of(model, prompts=["abc", "abc", "hg", [5, 6]], n=3, **fixed)
    others = choices_of(model, prompts=["h", "abc", [4], [5, 6]], n=2, **fixed)
    again = choices_of(model, prompts=["abc", "abc", "hg", [5, 6]], n=3, **fixed)
    assert many == again
    assert [many[3].text, many[4].text] == [others[2].text, others[3].text]
    assert [many[9].text, many[10].text] == [others[6].text, others[7].text]
    assert many[0].text != many[3].text
    assert completed(model, prompts=["abc"], max_tokens=1).seed_used is not None


def test_many_continuations__are_generated_in_groups_and_stay_in_order() -> None:
    prompts = [f"{letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
    model = Script({token: token + 1 for token in range(4, 11)})
    choices = choices_of(model, prompts=prompts, n=2, temperature=0, max_tokens=2, echo=True)
    expected = [
        f"{text}{'abcdefgh'[place + 1 : place + 3]}" for text in prompts for place in ["abcdefgh".index(text[1])]
    ]
    assert [choice.text for choice in choices] == [text for text in expected for _ in range(2)]
    assert [choice.index for choice in choices] == list(range(128))


@pytest.mark.parametrize("echo", [False, True])
def test_end_of_line__stops_and_is_a_token_without_a_text(echo: bool) -> None:
    [choice] = choices_of(spelled("hgf"), prompts=["h"], temperature=0, echo=echo, logprobs=0, max_tokens=9)
    text, tokens = ("hgf", ["h", "g", "f", "[EOS]"]) if echo else ("gf", ["g", "f", "[EOS]"])
    assert (choice.text, choice.finish_reason, choice.completion_tokens) == (text, "stop", 3)
    assert list(choice.tokens or ()) == tokens
    assert list(choice.text_offset or ()) == list(range(len(tokens)))


def test_end_of_line__is_the_one_greedy_token_after_an_echo_too() -> None:
    """A harness takes the last token for the generated one."""
    [choice] = choices_of(
        spelled("hgf"), prompts=[[BOS, *TOKENIZER.encode("hgf")]], temperature=0, echo=True, logprobs=1, max_tokens=1
    )
    assert (choice.text, choice.finish_reason) == ("hgf", "stop")
    assert choice.tokens == ("[BOS]", "h", "g", "f", "[EOS]")
    assert choice.text_offset == (0, 0, 1, 2, 3)


@pytest.mark.parametrize(
    ("stop", "max_tokens", "text", "tokens"),
    [
        (["d"], 8, "bc", "bc"),
        (["cd", "x"], 8, "b", "b"),
        (["b"], 8, "", ""),
        (["b"], 1, "", ""),
        (["ab"], 8, "bcdefgh", "bcdefgh"),
    ],
)
def test_stop_text__is_cut_off_with_its_tokens(stop: list[str], max_tokens: int, text: str, tokens: str) -> None:
    values: dict[str, object] = {"prompts": ["a"], "temperature": 0, "logprobs": 0, "stop": stop}
    [choice] = choices_of(spelled("abcdefgh"), **values, max_tokens=max_tokens)
    [echoed] = choices_of(spelled("abcdefgh"), **values, max_tokens=max_tokens, echo=True)
    assert choice.finish_reason == echoed.finish_reason == "stop"
    assert (choice.text, echoed.text) == (text, f"a{text}")
    assert "".join(choice.tokens or ()).removesuffix("[EOS]") == tokens
    assert "".join(echoed.tokens or ()).removesuffix("[EOS]") == f"a{tokens}"


def test_greedy_token__of_equally_likely_ones_has_the_lowest_id_and_is_never_special() -> None:
    model = Script({})
    model.table[:] = 0.0
    model.table[:, :3] = 5.0
    model.table[:, EOS] = -5.0
    [read_off] = choices_of(model, prompts=[[5]], temperature=0, echo=True, logprobs=1, max_tokens=1)
    [generated] = choices_of(model, prompts=[[5]], temperature=0, max_tokens=1)
    assert (read_off.text, generated.text) == ("ba", "a")


def test_lists__are_none_unless_they_are_asked_for() -> None:
    [choice] = choices_of(spelled("ab"), prompts=["a"], temperature=0, echo=True)
    assert (choice.tokens, choice.token_logprobs, choice.top_logprobs, choice.text_offset) == (None,) * 4


def test_empty_prompt__starts_a_line() -> None:
    [choice] = choices_of(spelled("hg"), prompts=[""], temperature=0, echo=True, logprobs=0)
    assert (choice.text, choice.tokens, choice.prompt_tokens) == ("hg", ("h", "g", "[EOS]"), 0)
    assert choice.token_logprobs == pytest.approx((0, 0, 0), abs=1e-6)


class Counting(Script):
    """Counts its passes over sequences; has a limited context."""

    context_tokens: int | None = 512
    passes = 0

    def hidden_states(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        self.passes += 1
        return super().hidden_states(ids, lengths)


def test_many_prompts__are_scored_side_by_side() -> None:
    model, unlimited = Counting({}), Counting({})
    unlimited.context_tokens = None
    prompts = [[4 + (number + place) % 8 for place in range(511)] for number in range(8)]
    choices = [
        choices_of(one, prompts=prompts, temperature=0, echo=True, logprobs=1, max_tokens=1)
        for one in (model, unlimited)
    ]
    assert choices[0] == choices[1] and len(choices[0]) == 8
    assert (model.passes, unlimited.passes) == (4, 1)


def test_ids_without_a_vocabulary_entry__are_refused_by_name() -> None:
    with pytest.raises(AppError, match=r"`prompts`: the token id 12 is not in the vocabulary of 12 tokens\.") as caught:
        job_of(small_model(12), {"prompts": [[3, 11, 12]]})
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("prompt", [[5] * 24, [2] + [5] * 24, "a" * 24])
def test_prompt__longer_than_the_context_is_refused_with_both_numbers(prompt: object) -> None:
    with pytest.raises(AppError, match="a prompt has 25 tokens, and this model reads at most 24") as caught:
        job_of(model_of("gpt2"), {"prompts": ["a", prompt], "echo": True, "max_tokens": 0})
    assert caught.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 20])
def test_chunks__are_the_text_of_their_choice(echo: bool, max_tokens: int) -> None:
    model = small_model(vocabulary_of(TOKENIZER))
    values: dict[str, object] = {"prompts": ["abc", "", [4, 5]], "n": 2, "seed": 3, "stop": ["ab", "hg"]}
    job = job_of(model, {**values, "echo": echo, "max_tokens": max_tokens}, is_streamed=True)
    *pieces, response = complete_together(model, [job])
    assert isinstance(response, CompletionResponse) and response.choices is not None
    for choice in response.choices:
        told = [piece for piece in pieces if isinstance(piece, GenerateChunk) and piece.index == choice.index]
        assert "".join(piece.text for piece in told) == choice.text
        assert [piece.start for piece in told] == [sum(len(p.text) for p in told[:n]) for n in range(len(told))]
        assert [piece.stop_reason is None for piece in told] == [True] * (len(told) - 1) + [False]
        assert all(piece.text for piece in told[:-1])


def test_requests_together__are_answered_as_alone_and_each_can_be_withdrawn() -> None:
    model = small_model(vocabulary_of(TOKENIZER))
    requests: list[dict[str, object]] = [
        {"prompts": ["abc", "h"], "seed": 1, "n": 2, "max_tokens": 9},
        {"prompts": ["a"] * 40, "n": 4, "seed": 2, "max_tokens": 40},
        {"prompts": ["abc", [5]], "seed": 3, "logprobs": 50, "echo": True, "max_tokens": 0},
        {"prompts": ["ab", [6]], "seed": 4, "logprobs": 1, "echo": True, "max_tokens": 5},
    ]
    jobs = [
        job_of(model, values, request_id=f"q{number}", is_streamed=number == 1)
        for number, values in enumerate(requests)
    ]

    answers = list(complete_together(model, jobs, withdrawn=lambda: {"q1"}))

    ended = {answer.request_id: answer for answer in answers if isinstance(answer, CompletionResponse)}
    assert len(ended) == 4 and len(answers) < 300
    assert ended["q1"].status == "failed" and ended["q1"].choices is None
    assert ended["q1"].error is not None and ended["q1"].error.code is ErrorCode.CANCELLED
    for number in (0, 2, 3):
        alone = choices_of(model, **requests[number])
        for one, other in zip(ended[f"q{number}"].choices or (), alone, strict=True):
            assert (one.text, one.tokens, one.text_offset) == (other.text, other.tokens, other.text_offset)
            assert [v for v in one.token_logprobs or () if v] == pytest.approx(
                [v for v in other.token_logprobs or () if v], abs=1e-5
            )
