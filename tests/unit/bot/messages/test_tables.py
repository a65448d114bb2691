"""Pages of runs and comparisons: their text, within Discord's limits."""

import re
from math import log

import discord
from hypothesis import strategies as st

from bot.commands.compare import attach_comparison, compare_answer, settings_answer
from bot.commands.list_runs import PAGE_RUNS
from bot.messages.answers import runs_page
from tests.support.cards import Read, texts, within_limits
from tests.support.measured_runs import OWN_TEXT, measured
from tests.support.messages import ENTRY
from tests.support.properties import for_all_pairs
from tests.support.stories import run_record
from trainer.contracts.runs import CorpusRef
from trainer.queue.run_index import RunRow
from trainer.reports.comparison import Measurement, compare, differences

LABELS = st.text(st.sampled_from("*_`~|<@>😀x"), min_size=1, max_size=64)


def test_compare__has_the_verdict_the_numbers_and_what_differs() -> None:
    worse: dict[str, object] = {"loss": 2.5, "top1_accuracy": None}
    shown = Read(compare_answer(compare([measured("new", summary=worse), measured("old")], split="test")))
    assert (shown.colour, shown.title, shown.footer) == (0xFAA61A, "⚖ new against old", "new · old")
    assert shown.text.startswith("**✗ worse: loss +25.00%")
    assert shown.text.split("\n\n", 1)[1].split("\n") == [
        "**new** · old",
        "LSTM-2x16 · LSTM-2x16 · test split",
        f"Loss (bits/token) **{2.5 / log(2):.3f}** · {2 / log(2):.3f} (+{0.5 / log(2):.3f})",
        "Loss (bits/char) **1.500** · 1.500 (+0.000)",
        "Perplexity **7.39** · 7.39 (+0.00)",
        "Top-1 **–** · 25.0%",
        "Top-5 **50.0%** · 50.0% (+0.0%)",
        "Parameters **100** · 100 (+0)",
        "Tokens/s **1\u202f000** · 1\u202f000 (+0)",
    ]


def test_compare__shows_four_runs_side_by_side_without_their_settings() -> None:
    losses = {"a": 1.9, "b": 2.0, "c": 1.8, "d": 2.0}
    runs = [measured(name, learning_rate=loss / 100, summary={"loss": loss}) for name, loss in losses.items()]
    shown = Read(compare_answer(compare(runs, split="test")))
    assert (shown.colour, shown.title, shown.footer) == (0xFAA61A, "⚖ a against b, c, d", "a · b · c · d")
    assert [line for line in shown.text.split("\n") if line.startswith("**against")] == [
        "**against b: better: loss -5.00% (95 % interval -5.00% to -5.00%)**",
        "**against c: ✗ worse: loss +5.56% (95 % interval +5.56% to +5.56%), more than 1.00%**",
        "**against d: better: loss -5.00% (95 % interval -5.00% to -5.00%)**",
    ]
    first, *others = (f"{loss / log(2):.3f}" for loss in losses.values())
    assert " · ".join([f"\nLoss (bits/token) **{first}**", *others]) in shown.text and "learning" not in shown.text


def test_compare__names_settings_and_texts_as_people_do() -> None:
    attached = {"1" * 64: "мәтін (attached)", "2" * 64: "ئۇيغۇر (attached)", "3" * 64: "мәтін (attached)"}
    mine, other, namesake = (CorpusRef(name=sha256, sha256=sha256, bytes=1) for sha256 in attached)
    early: dict[str, object] = {"enabled": True, "patience": 3}
    new = measured("new", corpus=mine, test_corpus=OWN_TEXT, early_stopping=early, num_epochs=7, precision="fp32")
    renewed = CorpusRef(name="own", sha256="e" * 64, bytes=1)

    def settings(old: Measurement) -> list[str]:
        found = differences(new.manifest.effective, old.manifest.effective)
        records = run_record("new"), run_record("old")
        shown = Read(settings_answer(*records, found, lambda corpus: attached.get(corpus, corpus)))
        assert (shown.title, shown.footer) == ("⚖ Different settings: kk-ipa · kk-ipa", "new · old")
        assert not re.search(r"[0-9a-f]{64}|_|null|true|false|`|--", shown.text)
        return shown.text.split("\n")

    assert settings(
        measured("old", corpus=other, test_corpus=renewed, num_epochs=5, early_stopping={"enabled": False})
    ) == [
        "epochs: 7 · 5",
        "early stopping: yes · no",
        "early stopping patience: 3 · 2",
        "precision: fp32 · auto",
        "corpus: мәтін (attached) · \u2068ئۇيغۇر (attached)\u2069",
        "test corpus: different content, same name",
    ]
    of_another_family = settings(measured("old", family="gpt2", corpus=namesake))
    assert "model: lstm · gpt2" in of_another_family and "corpus: different content, same name" in of_another_family
    assert "test corpus: own · –" in of_another_family
    assert not any(line.startswith(("layers", "attention", "architecture")) for line in of_another_family)


@for_all_pairs(st.lists(LABELS, min_size=PAGE_RUNS, max_size=PAGE_RUNS), texts)
def test_limits__hold_for_a_full_page_of_any_names(names: list[str], corpus: str) -> None:
    runs = [ENTRY._replace(label=name, corpus=corpus * 4, run_id="x" * 64) for name in names]
    rows = [RunRow(run.run_id, (run,)) for run in runs]
    embed = runs_page(rows, title=f"Your runs with «{corpus}»", total=8, page=1, pages=2)
    assert within_limits(embed)
    assert (embed.description or "").count("`" + "x" * 64 + "`") == PAGE_RUNS


def test_comparison__has_no_picture_if_none_could_be_drawn() -> None:
    embed = discord.Embed()
    assert attach_comparison(embed, None, {"a: one": ((1, 2.0),)}, "nats/token") == []
    assert embed.image.url is None
