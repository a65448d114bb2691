"""Numbers of the answers to score, generate and predict; the other texts are in test_cards.py."""

import re
import unicodedata

from bot.messages.inference import generate_answer, report_answer
from tests.support.cards import Read
from tests.support.messages import RUN
from tests.support.scores import report_of
from tests.support.stories import run_record
from trainer.config.validation import parse
from trainer.contracts.generations import FinishReason, GenerateRequest, GenerateResponse

REASONS: tuple[FinishReason, ...] = ("eos", "stop_sequence", "max_new_tokens", "context_full")


def test_report__of_a_text_from_right_to_left_keeps_its_numbers_in_place() -> None:
    record = run_record(label="ئۇيغۇر تىلى")
    made = report_of("بىر ٣", [1.0, 2.0, 3.0, 4.0, 9.5], unknown="٣", expected=(("ا", 0.41), ("[EOS]", 0.2)))
    shown = Read(report_answer(record, made, record.run_id, left_out=0))
    outside = re.sub("\u2068[^\u2068\u2069\n]*\u2069", "", f"{shown.title}\n{shown.text}")
    assert "max 9.50 at 5 «\u2068٣\u2069» · above 6: 1 of 5 characters" in shown.text
    assert "     5   9.50  \u2068٣\u2069 unknown   \u2068ا\u2069 41.0%  [EOS] 20.0%" in shown.text
    assert not any(unicodedata.bidirectional(char) in ("R", "AL", "AN", "FSI", "PDI") for char in outside)


def generated(prompt: str, *outputs: str) -> Read:
    count = len(outputs)
    answer: dict[str, object] = {
        **{"request_id": "f", "run_id": RUN, "status": "completed", "outputs": outputs, "seed_used": 1187},
        **{"steps": tuple(range(1, 1 + count)), "eos_terminated": (False,) * count, "stop_reason": REASONS[:count]},
    }
    answer["notes"] = ("It starts a new line.",) if prompt.endswith("\n") else ()
    response = parse(GenerateResponse, answer)
    request = GenerateRequest(prompt_text=prompt, temperature=0.8, top_k=40, top_p=0.9)
    return Read(generate_answer(run_record(), request, response))


def test_generate__shows_each_text_in_a_code_block_that_it_cannot_leave() -> None:
    shown = generated("@everyone ", "a", "b```c", "", "d")
    assert shown.title == "✍ kk-ipa · T 0.8 · top-k 40 · top-p 0.9 · seed 1187"
    assert shown.text.count("```") == 8
    assert shown.text.startswith("```\n@everyone a\n```\n1 token · ended by the model\n```\n@everyone b`")
    for ending in ("2 tokens · stopped at the stop text", "3 tokens · stopped at the maximum length"):
        assert ending in shown.text
    assert shown.text.endswith("4 tokens · stopped at the end of the model's context")
    assert generated("a\n", "b").text.endswith("\nIt starts a new line.")


def test_generate__shows_each_text_after_the_end_of_a_long_prompt() -> None:
    shown = generated("x" * 3990 + "the end of it ", "first " * 30, "second " * 30)
    assert shown.text.count("```\n…xxx") == 2
    assert "the end of it first first" in shown.text and "the end of it second second" in shown.text
