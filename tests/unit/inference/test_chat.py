"""The context of a chat: all messages, of which the newest fit first."""

import pytest

from tests.support.answers import WITH_MASK
from tests.support.families import POSITIONS, model_of
from tests.support.refusals import refused
from trainer.contracts.chats import ChatRequest, ChatTurn
from trainer.contracts.errors import ErrorCode
from trainer.contracts.inference_fields import MAX_PROMPT_CHARACTERS
from trainer.inference.chat import chat_prompt

LONG = ChatTurn(request_id="r", message="a" * MAX_PROMPT_CHARACTERS, answer="b")
TURNS = tuple(ChatTurn(request_id="r", message=m, answer=a) for m, a in (("h", "hh"), ("ab", "cd"), ("ef", "gh")))
ALL = "h\nhh\nab\ncd\nef\ngh\nabc\n"


@pytest.mark.parametrize(
    ("family", "turns", "room_for_answer", "prompt", "dropped"),
    [
        # of 24 places: [BOS]abc[EOS][BOS] are 6, each turn of two lines of two letters 8, the first one 7;
        # the last token that is written is not read again
        ("gpt2", TURNS, 1, "ab\ncd\nef\ngh\nabc\n", 1),
        ("gpt2", TURNS, 3, "ab\ncd\nef\ngh\nabc\n", 1),
        ("gpt2", TURNS, 4, "ef\ngh\nabc\n", 2),
        ("gpt2", TURNS, 11, "ef\ngh\nabc\n", 2),
        ("gpt2", TURNS, 12, "abc\n", 3),
        ("gpt2", TURNS, 300, "abc\n", 3),
        ("gru", TURNS, 300, ALL, 0),  # it reads all turns up to the longest prompt
        ("gru", (LONG, *TURNS), 300, ALL, 1),
    ],
)
def test_oldest_turns__are_dropped_where_they_leave_no_room_for_the_answer(
    family: str, turns: tuple[ChatTurn, ...], room_for_answer: int, prompt: str, dropped: int
) -> None:
    assert POSITIONS == 24
    request = ChatRequest(message="abc", max_new_tokens=room_for_answer, seed=4, alphabet="ab")
    found, count = chat_prompt(model_of(family), WITH_MASK, request, turns)
    assert (found.prompt_text, count) == (prompt, dropped)
    assert (found.max_new_tokens, found.seed, found.alphabet) == (room_for_answer, 4, "ab")


def test_message_that_is_longer_than_the_context__is_refused() -> None:
    chat_prompt(model_of("gpt2"), WITH_MASK, ChatRequest(message="a" * 21), ())
    with refused(ErrorCode.INVALID_INPUT, "`message` has 25 tokens, and this model reads at most 24"):
        chat_prompt(model_of("gpt2"), WITH_MASK, ChatRequest(message="a" * 22), ())
