"""Pages of runs and comparisons: their text, within Discord's limits."""

import re

import discord
import pytest
from hypothesis import strategies as st

from bot.commands.compare import attach_comparison, compare_answer, settings_answer
from bot.commands.list_runs import PAGE_RUNS
from bot.messages.answers import runs_page
from tests.support.cards import Read, texts, within_limits
from tests.support.measured_runs import OWN_TEXT, measured, of_fields
from tests.support.properties import for_all, for_all_pairs
from tests.support.stories import BEGIN, run_record
from trainer.contracts.runs import CorpusRef
from trainer.queue.run_index import RunEntry
from trainer.reports.comparison import Measurement, compare, differences


def compared(new: Measurement, old: Measurement) -> discord.Embed:
    return compare_answer(compare([new, old], split="test"))


ENTRY = RunEntry("lstm-1", 7, BEGIN, "kk-ipa", "lstm", "kk_ipa", has_attached_text=False)


LABELS = st.text(st.sampled_from("*_`~|<@>😀x"), min_size=1, max_size=64)


def page(*runs: RunEntry) -> Read:
    return Read(runs_page(runs, title="Your runs", total=len(runs), page=1, pages=1))


@pytest.mark.parametrize(
    ("loss", "colour", "said"),
    [(2.5, 0xFAA61A, "✗ regression: loss +25.00%"), (1.9, 0x57F287, "better: loss -5.00%"), (2.0, 0x5865F2, "equal")],
)
def test_compare__has_the_verdict_the_numbers_and_what_differs(loss: float, colour: int, said: str) -> None:
    accuracies: dict[str, object] = {"loss": loss, "top1_accuracy": None}
    shown = Read(compared(measured("new", learning_rate=0.01, summary=accuracies), measured("old")))

    assert (shown.colour, shown.title) == (colour, "⚖ new against old")
    assert shown.footer == "new · old"
    assert shown.text.startswith(f"**{said}")
    assert shown.text.split("\n\n", 1)[1] == "\n".join(
        [
            "**new** · old",
            "LSTM-2x16 · LSTM-2x16 · test split",
            f"Loss **{loss:.4f}** · 2.0000 ({loss - 2:+.4f})",
            "Perplexity **7.39** · 7.39 (+0.00)",
            "Bits/char **1.5000** · 1.5000 (+0.0000)",
            "Top-1 **–** · 25.0%",
            "Top-5 **50.0%** · 50.0% (+0.0%)",
            "Parameters **100** · 100 (+0)",
            "Tokens/s **1\u202f000** · 1\u202f000 (+0)",
        ]
    )


def test_compare__shows_four_runs_side_by_side_without_their_settings() -> None:
    losses = {"a": 1.9, "b": 2.0, "c": 1.8, "d": 2.0}
    runs = [measured(name, learning_rate=loss / 100, summary={"loss": loss}) for name, loss in losses.items()]
    shown = Read(compare_answer(compare(runs, split="test")))
    assert (shown.colour, shown.title, shown.footer) == (0xFAA61A, "⚖ a against b, c, d", "a · b · c · d")
    assert [line for line in shown.text.split("\n") if line.startswith("**against")] == [
        "**against b: better: loss -5.00% (95 % interval -5.00% to -5.00%)**",
        "**against c: ✗ regression: loss +5.56% (95 % interval +5.56% to +5.56%), more than 1.00%**",
        "**against d: better: loss -5.00% (95 % interval -5.00% to -5.00%)**",
    ]
    assert "Loss **1.9000** · 2.0000 · 1.8000 · 2.0000\n" in shown.text and "learning" not in shown.text


def test_compare__names_settings_and_texts_as_people_do() -> None:
    attached = {
        sign * 64: name
        for sign, name in (("1", "мәтін (attached)"), ("2", "ئۇيغۇر (attached)"), ("3", "мәтін (attached)"))
    }
    mine, other, namesake = (CorpusRef(name=sha256, sha256=sha256, bytes=1) for sha256 in attached)
    early: dict[str, object] = {"enabled": True, "patience": 3}
    new = measured("new", corpus=mine, test_corpus=OWN_TEXT, early_stopping=early, num_epochs=7, precision="fp32")
    renewed = CorpusRef(name="own", sha256="e" * 64, bytes=1)

    def named(corpus: str) -> str:
        return attached.get(corpus, corpus)

    def settings(old: Measurement) -> list[str]:
        found = differences(new.manifest.effective, old.manifest.effective)
        shown = Read(settings_answer(run_record("new"), run_record("old"), found, named))
        assert (shown.title, shown.footer) == ("⚖ Different settings: kk-ipa · kk-ipa", "new · old")
        assert not re.search(r"[0-9a-f]{64}|_|null|true|false|`|--", shown.text)
        return shown.text.split("\n")

    assert settings(measured("old", corpus=other, test_corpus=renewed)) == [
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


def test_compare__of_what_does_not_compare_says_why() -> None:
    on_one_text = compare([measured("new", split_seed=1), measured("old")])
    shown = Read(compare_answer(on_one_text))
    assert shown.colour == 0x5865F2  # on one text they do
    shown = Read(compared(measured("new", split_seed=1), measured("old")))
    assert shown.colour == 0x95A5A6
    assert shown.text.startswith("**not comparable**\nTheir test splits differ")


@for_all(texts)
def test_limits__hold_for_the_comparison_of_runs_of_any_name(label: str) -> None:
    name = {"label": label[:64]} if label[:64].isprintable() and label else {}
    one, two = of_fields("new", {**name, "split_seed": 1}), of_fields("old", {**name, "corpus": OWN_TEXT})
    assert within_limits(compared(one, two))


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        (ENTRY, "⏳ **kk-ipa** · queued\n`lstm-1` · kk\\_ipa · <@7> · <t:1795176000:R>"),
        (
            ENTRY._replace(state="running", progress=41.6, loss_nats=2.5, user_id=None),
            "🏃 **kk-ipa** · running 42 % · 2.500 nats/token\n`lstm-1` · kk\\_ipa · command line · <t:1795176000:R>",
        ),
        (
            ENTRY._replace(state="completed", loss_nats=1.5, bits_per_char=2.164, has_attached_text=True, label=None),
            "✅ **lstm-1** · completed · 1.500 nats/token · 2.16 bits/char\n"
            "`lstm-1` · attached text · <@7> · <t:1795176000:R>",
        ),
        (
            ENTRY._replace(state="completed", loss_nats=0.5, bits_per_char=0.899, unknown_char_share=0.845),
            "✅ **kk-ipa** · completed · 0.500 nats/token · 0.90 bits/char ⚠\n"
            "`lstm-1` · kk\\_ipa · <@7> · <t:1795176000:R>",
        ),
    ],
)
def test_page__tells_of_a_run_how_it_stands_and_what_it_is(entry: RunEntry, shown: str) -> None:
    assert page(entry).text == shown
    assert page(entry).title == "📋 Your runs: 1"


def test_page__without_runs_says_what_to_do() -> None:
    assert page().text == "No runs found. `/mt train` starts one; `mine:False` includes the runs of other people."


def test_page__of_several_says_which_it_is() -> None:
    shown = runs_page([ENTRY], title="Your runs", total=17, page=2, pages=3)
    assert Read(shown).footer == "page 2 of 3"


@for_all_pairs(st.lists(LABELS, min_size=PAGE_RUNS, max_size=PAGE_RUNS), texts)
def test_limits__hold_for_a_full_page_of_any_names(names: list[str], corpus: str) -> None:
    runs = [ENTRY._replace(label=name, corpus=corpus * 4, run_id="x" * 64) for name in names]
    embed = runs_page(runs, title=f"Your runs with «{corpus}»", total=8, page=1, pages=2)
    assert within_limits(embed)
    assert (embed.description or "").count("`" + "x" * 64 + "`") == PAGE_RUNS


def test_comparison__has_no_picture_if_none_could_be_drawn() -> None:
    embed = discord.Embed()
    assert attach_comparison(embed, None, {"a: one": ((1, 2.0),)}, "nats per token") == []
    assert embed.image.url is None
