"""The context of a chat: all messages, of which the newest fit first."""

import pytest

from tests.support.families import POSITIONS, model_of
from tests.support.tiny_models import char_tokenizer
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import ChatRequest, ChatTurn
from trainer.contracts.inference_fields import MAX_PROMPT_CHARACTERS
from trainer.inference.chat import chat_prompt

TOKENIZER = char_tokenizer(["abcdefgh"], mask_token=True)


def turn(message: str, answer: str) -> ChatTurn:
    return ChatTurn(request_id="r", message=message, answer=answer)


TURNS = (turn("h", "hh"), turn("ab", "cd"), turn("ef", "gh"))


@pytest.mark.parametrize(
    ("room_for_answer", "prompt", "dropped"),
    [
        # of 24 places: [BOS]abc[EOS][BOS] are 6, each turn of two lines of two letters 8, the first one 7;
        # the last token that is written is not read again
        (1, "ab\ncd\nef\ngh\nabc\n", 1),
        (3, "ab\ncd\nef\ngh\nabc\n", 1),
        (4, "ef\ngh\nabc\n", 2),
        (11, "ef\ngh\nabc\n", 2),
        (12, "abc\n", 3),
        (300, "abc\n", 3),
    ],
)
def test_oldest_turns__are_dropped_where_they_leave_no_room_for_the_answer(
    room_for_answer: int, prompt: str, dropped: int
) -> None:
    assert POSITIONS == 24
    request = ChatRequest(message="abc", max_new_tokens=room_for_answer, seed=4, alphabet="ab")
    found, count = chat_prompt(model_of("gpt2"), TOKENIZER, request, TURNS)
    assert (found.prompt_text, count) == (prompt, dropped)
    assert (found.max_new_tokens, found.seed, found.alphabet) == (room_for_answer, 4, "ab")


def test_recurrent_model__reads_all_turns_up_to_the_longest_prompt() -> None:
    long = turn("a" * MAX_PROMPT_CHARACTERS, "b")
    found, dropped = chat_prompt(model_of("gru"), TOKENIZER, ChatRequest(message="abc"), TURNS)
    cut, also_dropped = chat_prompt(model_of("gru"), TOKENIZER, ChatRequest(message="abc"), (long, *TURNS))
    assert (found.prompt_text, dropped) == ("h\nhh\nab\ncd\nef\ngh\nabc\n", 0)
    assert (cut.prompt_text, also_dropped) == (found.prompt_text, 1)


def test_message_that_is_longer_than_the_context__is_refused() -> None:
    chat_prompt(model_of("gpt2"), TOKENIZER, ChatRequest(message="a" * 21), ())
    with pytest.raises(AppError) as caught:
        chat_prompt(model_of("gpt2"), TOKENIZER, ChatRequest(message="a" * 22), ())
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.message == "`message` has 25 tokens, and this model reads at most 24. Write a shorter message."
