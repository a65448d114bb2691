"""Continuations: what is written and sent in chunks, when it ends, options, and requests side by side."""

import re
from collections import Counter
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from tests.support.answers import (
    BOS,
    EOS,
    LETTERS,
    WITH_MASK,
    WORD_START,
    Script,
    check_chunks,
    continue_greedily,
    log_probabilities,
    small_tokenizer,
    spelling,
    surprisals,
    write,
    write_together,
)
from tests.support.families import CONTINUING, POSITIONS, READ_ONCE, model_of, slow_unless_quick
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer, small_model, tokenizer_of
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.generations import GenerateChunk, GenerateRequest, GenerateResponse
from trainer.contracts.tokenizers import METHODS
from trainer.inference.generation import GenerationJob, generate_together
from trainer.models.base import LanguageModel
from trainer.models.steps import ModelState
from trainer.tokenizers.base import Tokenizer, vocabulary_of

SIZE = LETTERS.vocab_size
BEYOND = "abcdhgfe" * 9
"""A prompt that is longer than the context of a transformer."""
GREEDY: dict[str, object] = {"temperature": 0}
ENDLESS: dict[str, object] = {"stop_on_eos": False}
TOKENIZERS: dict[str, Tokenizer] = {method: small_tokenizer(method) for method in METHODS}
MODELS: dict[str, LanguageModel] = {method: small_model(vocabulary_of(t)) for method, t in TOKENIZERS.items()}
"""Models whose tokens are all about as likely, and that end no line soon."""


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_greedy__takes_the_likeliest_token_of_a_forward_pass_each_time(name: str) -> None:
    model = model_of(name)
    ids = continue_greedily(model, WITH_MASK, [BOS, *WITH_MASK.encode("abc")], 12)
    text = "".join("\n" if i == EOS else WITH_MASK.decode([i]) for i in ids)
    values: dict[str, object] = {"max_new_tokens": 12, "num_return_sequences": 3, **GREEDY, **ENDLESS}
    for seed in (1, 2):
        found = write(model, WITH_MASK, prompt_text="abc", seed=seed, **values)
        assert (found.outputs, found.steps, found.prompt_tokens) == ((text,) * 3, (12,) * 3, 3)


@pytest.mark.parametrize(
    ("values", "output", "steps", "reason"),
    [
        ({}, "hgf", 4, "eos"),
        ({"prompt_text": "abc\n"}, "hgf", 4, "eos"),
        ({"prompt_text": "e\n", "stop_sequences": ["\nh", "eh"]}, "hgf", 4, "eos"),
        ({**ENDLESS, "max_new_tokens": 9}, "hgf\nhgf\nh", 9, "max_new_tokens"),
        ({**ENDLESS, "stop_sequences": ["f\nh"]}, "hg", 5, "stop_sequence"),
        ({**ENDLESS, "stop_sequences": ["\n"]}, "hgf", 4, "stop_sequence"),
    ],
)
def test_text__ends_at_its_line_or_continues(values: dict[str, object], output: str, steps: int, reason: str) -> None:
    found = write(spelling("hgf"), **GREEDY, **values)
    assert (found.outputs, found.steps, found.stop_reason) == ((output,), (steps,), (reason,))
    assert found.eos_terminated == (reason == "eos",)


@pytest.mark.parametrize(
    ("stops", "output", "steps"),
    [
        (["e"], "abcd", 5),
        (["cd", "xyz"], "ab", 4),
        (["ef", "de"], "abc", 5),
        (["a"], "", 1),
        (["abc"], "", 3),
        (["cdx", "bcd", "cd", "d"], "a", 4),
        (["d", "bcd"], "a", 4),
        (["zz"], "abcdefgh", 8),
        (["ha"], "abcdefgh", 8),
    ],
)
def test_stop_sequence__is_cut_off_with_all_after_it(stops: list[str], output: str, steps: int) -> None:
    found = write(spelling("abcdefgh"), **GREEDY, stop_sequences=stops, max_new_tokens=8)
    assert (found.outputs, found.steps) == ((output,), (steps,))
    assert found.stop_reason == ("max_new_tokens" if steps == 8 else "stop_sequence",)


def test_stop_sequence_or_alphabet__may_be_typed_in_any_form() -> None:
    tokenizer = char_tokenizer(["abcdefg\u00e9"])
    model = Script(dict(pairwise([BOS, *tokenizer.encode("ab\u00e9c"), EOS])))
    assert write(model, tokenizer, **GREEDY, stop_sequences=["e\u0301"]).outputs == ("ab",)
    found = write(MODELS["char"], TOKENIZERS["char"], alphabet="g\u0306", max_new_tokens=40, seed=1, **ENDLESS)
    assert set("".join(found.outputs or ())) == set("gğ")


def test_each_sequence__is_cut_at_its_own_stop_or_end() -> None:
    model = small_model(SIZE)
    values: dict[str, object] = {"seed": 4, "num_return_sequences": 10, "max_new_tokens": 60}
    texts = write(model, **values, **ENDLESS).outputs or ()
    stopped = write(model, **values, **ENDLESS, stop_sequences=["a", "bc"]).outputs or ()
    ended = write(model, **values)
    assert stopped == tuple(re.split("a|bc", text)[0] for text in texts)
    assert len({len(text) for text in stopped}) > 2
    assert ended.outputs == tuple(text.split("\n")[0] for text in texts)
    assert ended.eos_terminated == tuple("\n" in text for text in texts)
    assert True in ended.eos_terminated


def test_prompt__is_read_without_blank_lines_to_its_end_and_counted() -> None:
    model = small_model(SIZE)
    texts = ("ab\r\n \n\nc", "ab\nc", "abc")
    found, plain, other = (write(model, prompt_text=text, seed=1, logprobs=True) for text in texts)
    assert found == plain != other and found.notes == ()
    new_line = write(model, prompt_text="abc\n")
    assert new_line.notes == ("The prompt ends with a newline, so the output starts a new line.",)
    unknown = write(model, prompt_text="abz\n\u00e9c")
    assert (unknown.prompt_tokens, unknown.unk_count) == (5, 2)
    follows = dict(pairwise([*LETTERS.encode("ab"), EOS]))
    assert write(Script(follows), prompt_text="c" * 5000 + "a", **GREEDY).outputs == ("b",)


def test_extreme_requests__are_answered() -> None:
    tiny, huge = 5e-324, 1.7e308
    extremes = product([0.0, tiny, 1.0, huge], [tiny, 1.0], [0, 1, 10**6], [None, tiny, huge])
    for temperature, top_p, top_k, penalty in extremes:
        values: dict[str, object] = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": 1, **ENDLESS}
        values |= {"prompt_text": "hgfedcba", "repetition_penalty": penalty, "max_new_tokens": 4}
        assert write(small_model(SIZE), **values).steps == (4,)


def test_seed__gives_the_same_text_again_and_is_stated_if_drawn() -> None:
    model = small_model(SIZE)
    first, again = (write(model, seed=7, num_return_sequences=3) for _ in range(2))
    drawn = write(model, num_return_sequences=3)
    assert drawn == write(model, num_return_sequences=3, seed=drawn.seed_used)
    assert first == again and first.seed_used == 7
    assert len(set(first.outputs or ())) == 3
    many, few = (write(model, seed=3, num_return_sequences=n, max_new_tokens=40).outputs or () for n in (10, 2))
    assert few == many[:2], "a sequence does not depend on how many there are"


def test_specials__are_never_sampled() -> None:
    class Unruly(Script):
        def forward_with_state(self, ids: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
            logits = torch.zeros(*ids.shape, SIZE)
            logits[..., :3] = 50.0
            return logits, state

    found = write(Unruly({}), seed=1, max_new_tokens=300, num_return_sequences=4, **ENDLESS)
    letters = Counter("".join(found.outputs or ()))
    assert set(letters) == set("abcdefgh\n")
    assert letters.total() == 1200


@pytest.mark.parametrize("name", slow_unless_quick(READ_ONCE))
def test_text__ends_where_the_context_is_full_and_states_it(name: str) -> None:
    model, prompt = model_of(name), "abcdefgh"
    values: dict[str, object] = {"max_new_tokens": 100, "num_return_sequences": 3, "temperature": 1.5, "seed": 1}
    found = write(model, WITH_MASK, prompt_text=prompt, **values, **ENDLESS)
    assert found.stop_reason == ("context_full",) * 3
    for steps, text in zip(found.steps or (), found.outputs or (), strict=True):
        # each new line takes a place for its [BOS], and the last token none
        assert POSITIONS < 1 + len(prompt) + steps + text.count("\n") <= POSITIONS + 2
    beyond = write(model, WITH_MASK, prompt_text=BEYOND, num_return_sequences=2)
    assert (beyond.outputs, beyond.steps, beyond.stop_reason) == (("", ""), (0, 0), ("context_full",) * 2)


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_requests_together__are_each_answered_as_alone(name: str) -> None:
    model = model_of(name)
    values: dict[str, object] = {"max_new_tokens": 9, "num_return_sequences": 2, **ENDLESS}
    requests = [values | {"prompt_text": p, "seed": n} for n, p in enumerate(["", "abcd\nef", BEYOND, "hgfedcbahgf"])]
    together = {response.request_id: response for response in write_together(model, WITH_MASK, *requests)}
    for number, request in enumerate(requests):
        alone = write(model, WITH_MASK, **request)
        assert together[f"r{number}"] == changed(alone, request_id=f"r{number}")


@pytest.mark.parametrize("prompt", ["abc", ""])
@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_logprobs__are_the_models_own_whatever_was_filtered(name: str, prompt: str) -> None:
    model = model_of(name)
    values: dict[str, object] = {"max_new_tokens": 12, "num_return_sequences": 3, "seed": 2, "temperature": 1.7}
    found = write(model, WITH_MASK, prompt_text=prompt, **values, top_k=5, repetition_penalty=1.3, logprobs=True)
    assert found.logprobs is not None and found.outputs is not None and found.steps is not None
    for text, steps, logprobs in zip(found.outputs, found.steps, found.logprobs, strict=True):
        ids = [BOS, *WITH_MASK.encode(prompt), *[*WITH_MASK.encode(text), EOS][:steps]]
        assert len(logprobs) == steps
        assert logprobs == pytest.approx([-nats for nats in surprisals(model, ids)[-steps:]], abs=1e-4)
    assert write(model, WITH_MASK).logprobs is None


@pytest.mark.parametrize("name", slow_unless_quick(CONTINUING))
def test_top_logprobs__are_the_likeliest_tokens_of_a_forward_pass(name: str) -> None:
    model = model_of(name)
    values: dict[str, object] = {"max_new_tokens": 12, "num_return_sequences": 2, "seed": 2, "temperature": 1.7}
    found = write(model, WITH_MASK, prompt_text="abc", **values, top_k=5, top_logprobs=3)
    assert found.tokens is not None and found.logprobs is not None and found.top_logprobs is not None
    assert [len(tokens) for tokens in found.tokens] == list(found.steps or ())
    for tokens, logprobs, steps in zip(found.tokens, found.logprobs, found.top_logprobs, strict=True):
        ids = [BOS, *WITH_MASK.encode("abc"), *map(WITH_MASK.names.index, tokens)]
        rows = log_probabilities(model, ids)[-len(tokens) - 1 : -1]
        for token, logprob, top, row in zip(tokens, logprobs, steps, rows, strict=True):
            assert logprob == pytest.approx(row[WITH_MASK.names.index(token)], abs=1e-4)
            assert [value for _, value in top] == pytest.approx(sorted(row, reverse=True)[:3], abs=1e-4)
            assert [row[WITH_MASK.names.index(other)] for other, _ in top] == pytest.approx(
                [p for _, p in top], abs=1e-4
            )
    plain = write(model, WITH_MASK, prompt_text="abc", **values, top_k=5)
    assert plain.outputs == found.outputs
    assert (plain.tokens, plain.text_offsets, plain.top_logprobs, plain.logprobs) == (None,) * 4


@pytest.mark.parametrize("stop_on_eos", [True, False])
@pytest.mark.parametrize("prompt", ["abc", "abc "])
@pytest.mark.parametrize("method", METHODS)
def test_text_offsets__cut_the_output_into_its_tokens(method: str, prompt: str, stop_on_eos: bool) -> None:
    tokenizer = TOKENIZERS[method]
    values: dict[str, object] = {"max_new_tokens": 40, "num_return_sequences": 4, "stop_on_eos": stop_on_eos}
    found = write(MODELS[method], tokenizer, prompt_text=prompt, seed=3, top_logprobs=1, **values)
    answers = zip(found.outputs or (), found.tokens or (), found.text_offsets or (), strict=True)
    for output, tokens, offsets in answers:
        pieces = [output[start:end] for start, end in pairwise([*offsets, len(output)])]
        assert "".join(pieces) == output and len(pieces) == len(tokens)
        for name, piece in zip(tokens, pieces, strict=True):
            token_id = tokenizer.names.index(name)
            is_line_end = token_id == tokenizer.special_ids.line_end and not stop_on_eos
            assert piece.count("\n") == is_line_end
            if token_id not in tokenizer.byte_values:  # the last byte of a character has its text
                assert is_line_end or piece.strip().endswith(tokenizer.texts[token_id].strip())


@pytest.mark.parametrize("method", METHODS)
def test_alphabet__only_its_letters_are_written_by_every_tokenizer(method: str) -> None:
    def text(alphabet: str, *, stop_on_eos: bool) -> str:
        values: dict[str, object] = {"seed": 2, "max_new_tokens": 40, "num_return_sequences": 10, "temperature": 3.0}
        values |= {"top_k": 0, "alphabet": alphabet, "stop_on_eos": stop_on_eos}
        return "".join(write(MODELS[method], TOKENIZERS[method], **values).outputs or ())

    letters = set("ehistw ")
    assert set(text("ehistw ", stop_on_eos=True)) <= letters
    assert set(text("ehistw \n", stop_on_eos=False)) - letters == {"\n"}
    endless = text("ehistw ", stop_on_eos=False)
    assert set(endless) <= letters and len(endless) >= 400


@pytest.mark.parametrize("method", METHODS)
def test_banned_tokens__never_occur_nor_do_special_ones(method: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    unknown = tokenizer.names[tokenizer.special_ids.unk]
    banned = [text.removeprefix(" ") for text in tokenizer.texts if text.strip()][::3][:60]
    forbidden = {i for i, text in enumerate(tokenizer.texts) if text.removeprefix(" ") in banned}
    request = GenerateRequest(
        prompt_text="", banned_tokens=(*banned, unknown), seed=1, max_new_tokens=100, stop_on_eos=False
    )
    job = GenerationJob(model, tokenizer, request, GenerateResponse(request_id="r", run_id="run", status="queued"))
    assert len(list(generate_together(model, [job]))) == 1
    sampled = set(job.sequences[0].context[len(job.prompt.ids) :])
    assert len(sampled) > 15
    assert not sampled & (forbidden | set(tokenizer.special_ids.never_sampled))


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
    with refused(ErrorCode.INVALID_INPUT, sentence):
        write(model_of("gru"), WITH_MASK, **values)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prompt", ["the sun was", "shining\nthe sun was", ""])
def test_space_at_the_end_of_a_prompt__begins_the_next_token(method: str, prompt: str) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    start, special_ids = WORD_START.get(method), tokenizer.special_ids
    is_word = method == "word"
    lines = prompt.split("\n")
    if not (start or is_word):
        lines[-1] += " "
    opening = [] if special_ids.bos is None else [special_ids.bos]
    ids = [i for line in lines for i in (*opening, *tokenizer.encode(line), special_ids.eos)][:-1]
    if method == "sentencepiece" and not prompt:
        ids += tokenizer.encode(" ")[:1]  # the space that it adds at the start of a line
    ids = ids if opening else [special_ids.start, *ids]
    row = log_probabilities(model, ids)[-1]
    allowed = (i for i in range(len(row)) if i not in special_ids.never_sampled)
    best = max((i for i in allowed if start is None or tokenizer.names[i].startswith(start)), key=row.__getitem__)
    values: dict[str, object] = {"prompt_text": f"{prompt} ", "max_new_tokens": 1, "top_logprobs": 1, **GREEDY}
    found = write(model, tokenizer, **values)
    assert found.tokens == ((tokenizer.names[best],),)
    assert found.outputs == (tokenizer.texts[best].removeprefix(" " if start else ""),)
    assert [value for [value] in found.logprobs or ()] == pytest.approx([row[best]], abs=1e-4)
    assert found.text_offsets == ((0,),)
    n_marks = len(opening) * len(lines) + (len(lines) - 1 if opening else len(lines))
    assert found.prompt_tokens == len(ids) - n_marks
    several = {**values, "seed": 3, "num_return_sequences": 10, "temperature": 3, "max_new_tokens": 5}
    together = write_together(model, tokenizer, several, {**several, "prompt_text": "the sun"})
    answers = [answer for answer in together if isinstance(answer, GenerateResponse)]
    for number, text in enumerate((f"{prompt} ", "the sun")):
        alone = write(model, tokenizer, **{**several, "prompt_text": text})
        assert alone.outputs == next(answer.outputs for answer in answers if answer.request_id == f"r{number}")
        assert number or all(start is None or tokens[0].startswith(start) for tokens in alone.tokens or ())
    without_spaces = {"alphabet": "ehistw", "max_new_tokens": 20, "stop_on_eos": False}
    assert " " not in "".join(write(model, tokenizer, **{**several, **without_spaces}).outputs or ()) or is_word


@pytest.mark.parametrize(
    ("prompt", "output"), [("the sun ", "was"), ("the sun\t", "was"), ("(the sun ", ","), (" ", "the")]
)
def test_space_at_the_end_of_a_prompt__is_not_written_again_between_words(prompt: str, output: str) -> None:
    tokenizer = tokenizer_of("word", ["( the sun was , the sun ,"])
    [end], [sun], [word] = [tokenizer.special_ids.eos], tokenizer.encode("sun"), tokenizer.encode(output)
    follows = {end: word, sun: word}
    found = write(Script(follows, tokenizer.vocab_size), tokenizer, prompt_text=prompt, max_new_tokens=1, **GREEDY)
    assert found.outputs == (output,)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prompt", ["the sun", "the sun "])
@pytest.mark.parametrize("stops", [[], ["th", "the s", "e", "\nw"], ["s w", "ing"]])
def test_chunks__in_their_order_are_the_output_and_never_a_part_of_a_stop(
    method: str, prompt: str, stops: list[str]
) -> None:
    tokenizer, model = TOKENIZERS[method], MODELS[method]
    request: dict[str, object] = {"prompt_text": prompt, "stop_sequences": stops, "seed": 3, **ENDLESS}
    request |= {"max_new_tokens": 50, "num_return_sequences": 6}
    *chunks, response = write_together(model, tokenizer, request, is_streamed=True)
    assert response == write(model, tokenizer, **request)
    assert isinstance(response, GenerateResponse)
    for index, (output, reason) in enumerate(zip(response.outputs or (), response.stop_reason or (), strict=True)):
        assert check_chunks(chunks, index, output)[-1].stop_reason == reason


def test_chunks__wait_only_for_a_possible_stop_sequence() -> None:
    """Of what is written letter by letter, `ab` is sent only when it is clear that no `abc` comes of it."""
    request = {"stop_sequences": ["abc"], "seed": 5, "max_new_tokens": 400, "alphabet": "abc", **ENDLESS}
    *chunks, response = write_together(model_of("gru"), WITH_MASK, request, is_streamed=True)
    assert isinstance(response, GenerateResponse) and response.stop_reason == ("stop_sequence",)
    text = "".join(response.outputs or ()) + "abc"
    sent = [chunk.start + len(chunk.text) for chunk in chunks if isinstance(chunk, GenerateChunk)]
    held = [next((n for n in (2, 1) if text[:t].endswith("ab"[:n])), 0) for t in range(1, len(text))]
    expected = sorted({t - n for t, n in enumerate(held, 1)} - {0})
    assert len(expected) > 5
    assert sent == [*expected, len(text) - 3]


def test_withdrawn__ends_after_this_token_and_changes_no_other_request() -> None:
    model = model_of("lstm")
    requests = [{"seed": n, "max_new_tokens": 30, "num_return_sequences": 2, **ENDLESS} for n in range(3)]
    answers = write_together(model, WITH_MASK, *requests, is_streamed=True, withdrawn=("r1",))
    ended = {answer.request_id: answer for answer in answers if isinstance(answer, GenerateResponse)}
    assert ended["r1"].status == "failed" and ended["r1"].outputs is None
    assert ended["r1"].error is not None and ended["r1"].error.code is ErrorCode.CANCELLED
    assert sum(isinstance(answer, GenerateChunk) and answer.request_id == "r1" for answer in answers) == 2
    for n in (0, 2):
        alone = write(model, WITH_MASK, **requests[n])
        assert ended[f"r{n}"] == changed(alone, request_id=f"r{n}")
