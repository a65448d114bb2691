"""A group of runs in the terminal: its runs, the spread of their numbers, and what comes next."""

from math import log
from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.groups import GROUP, group_stories
from trainer.commands.groups import follow_group_to_end, short_spread, show_group
from trainer.commands.terminal import EXIT_FAILED, Terminal
from trainer.contracts.base import changed
from trainer.contracts.groups import group_status
from trainer.contracts.intervals import spread
from trainer.lab.here import Here


async def test_end_of_a_group__names_its_failed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stories = group_stories(tmp_path / "artifacts")
    stories[0].start().step(100, 2.0, 1.5).complete()
    stories[1].start().step(100, 2.0, 1.7).complete()
    stories[2].start().fail("Memory ran out.")
    terminal = Terminal(as_json=False)
    assert await follow_group_to_end(GROUP, terminal, Here(settings_in(tmp_path))) == EXIT_FAILED
    shown, _ = capsys.readouterr()
    assert f"kk-ipa ({GROUP}): completed. 3 runs: 2 completed, 1 failed." in shown
    assert f"{GROUP}-s3: Memory ran out." in shown
    assert "`mt resume kk-ipa` resumes its failed runs." in shown


def test_group_with_unknown_text__has_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [story.start().complete().follower().status for story in group_stories(tmp_path)]
    group = group_status(GROUP, [changed(run, unknown_char_share=0.5) for run in runs])
    show_group(group, Terminal(as_json=False))
    assert "50.0% of the characters; (!) figures are too low" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["ngram", "lstm"])
def test_group__that_does_not_depend_on_the_seed_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    runs = [story.start().complete().follower().status for story in group_stories(tmp_path)]
    group = group_status(GROUP, [changed(run, model_family=family, test_loss=2.0) for run in runs])
    show_group(group, Terminal(as_json=False))
    shown = " ".join(capsys.readouterr().out.split())
    assert ("n-grams do not depend on the seed: more seeds are no more evidence." in shown) == (family == "ngram")
    assert "(3 of 3); intervals over other seeds, not over other lines" in shown
    assert (group.numbers["test_loss"].deviation, group.numbers["test_loss"].low) == (0.0, None)


@pytest.mark.parametrize(
    ("values", "shown"), [([], ""), ([1.5], "1.500"), ([1.0, 2.0, 4.0], "2.333 ± 1.528 (1.000–4.000)")]
)
def test_spread__is_short_in_a_list(values: list[float], shown: str) -> None:
    assert short_spread("test_loss", spread(values, 0.0) if values else None, "nats") == shown
    in_nats = [bits * log(2) for bits in values]
    assert short_spread("test_loss", spread(in_nats, 0.0) if values else None, "bits") == shown
    in_bits = [nats / log(2) for nats in values]
    assert short_spread("bits_per_char", spread(in_bits, 0.0) if values else None, "nats") == shown
