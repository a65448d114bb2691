"""Pages of runs and comparisons: their text, within Discord's limits."""

import re

import discord
from hypothesis import strategies as st

from bot.commands.compare import attach_comparison, settings_answer
from bot.commands.list_runs import PAGE_RUNS
from bot.messages.answers import runs_page
from bot.messages.report_card import attach_figures
from tests.support.cards import Read, texts, within_limits
from tests.support.experiment_results import with_batteries
from tests.support.measured_runs import OWN_TEXT, measured
from tests.support.messages import ENTRY
from tests.support.properties import for_all_pairs
from tests.support.stories import run_record
from trainer.contracts.runs import CorpusRef
from trainer.queue.run_index import RunRow
from trainer.reports.comparison import Measurement, differences
from trainer.reports.experiment_report import experiment_report

LABELS = st.text(st.sampled_from("*_`~|<@>😀x"), min_size=1, max_size=64)


def test_compare__shows_names_of_settings_and_corpora() -> None:
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
    embed = runs_page(rows, title=f"Your runs with «{corpus}»", total=8, page=" · page 1 of 2")
    assert within_limits(embed)
    assert (embed.description or "").count("`" + "x" * 64 + "`") == PAGE_RUNS


def test_message__has_no_picture_if_none_could_be_drawn() -> None:
    embed = discord.Embed()
    assert attach_comparison(embed, None, {"a: one": ((1, 2.0),)}, "nats/token") == []
    assert attach_figures(embed, experiment_report(with_batteries()).figures(), {}) == []
    assert embed.image.url is None
