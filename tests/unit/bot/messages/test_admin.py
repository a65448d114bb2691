"""Embeds of `/mt-admin`."""

import pytest

from bot.commands.admin import doctor_answer
from bot.messages.text import AMBER, GREEN, RED
from trainer.services.health import Finding

OK, WARNING, FAILURE = Finding("ok", "Fine."), Finding("warning", "Little room."), Finding("failure", "No answer.")


@pytest.mark.parametrize(
    ("findings", "colour", "summary"),
    [
        ([OK, OK], GREEN, "All checks passed."),
        ([OK, WARNING], AMBER, "0 checks failed · 1 warning"),
        ([FAILURE, WARNING, WARNING], RED, "1 check failed · 2 warnings"),
    ],
)
def test_doctor__is_as_red_as_its_worst_check(findings: list[Finding], colour: int, summary: str) -> None:
    embed = doctor_answer({f"check {number}": finding for number, finding in enumerate(findings)})
    assert embed.colour is not None and embed.colour.value == colour
    lines = (embed.description or "").splitlines()
    assert lines[0] == summary
    assert [line.endswith(finding.message) for line, finding in zip(lines[1:], findings, strict=True)] == [True] * len(
        findings
    )
