"""Reports of tokenizers, corpora and runs."""

from tests.support.messages import OVERVIEW, RUNNING, tokenizer
from tests.support.reports import STATS
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusStatistics
from trainer.reports.corpus_report import corpus_report
from trainer.reports.report_text import plain_lines
from trainer.reports.run_report import run_report
from trainer.reports.tokenizer_report import tokenizer_report


def test_tokenizer__has_its_method_and_after_its_training_its_fit() -> None:
    queued, completed = tokenizer("kk", "queued"), changed(tokenizer("kk", "completed"), vocab_size=29, stats=STATS)
    assert [*plain_lines(tokenizer_report(queued))] == ["char-1: queued", "method  char"]
    assert [*plain_lines(tokenizer_report(completed))] == [
        "char-1: completed",
        "method      char",
        "vocabulary  29 tokens",
        "held out    31 lines, 1,203 tokens",
        "coverage    99.0% of tokens, 95.0% of distinct characters",
        "unknown     1.0% of tokens, 2.0% of the characters; (!) figures are too low to compare",
        "tokens      0.512 per character, 2.250 per word",
    ]


def test_corpus__has_its_characters_and_the_newest_runs() -> None:
    of_text = changed(OVERVIEW, bytes=5, languages=("kk", "tr"), is_ipa=True)
    statistics = CorpusStatistics(2, 4, 3, (("a", 2), (" ", 1), ("\u0301", 1)))
    lines = [*plain_lines(corpus_report(of_text, statistics, [f"run-{number}" for number in range(30)]))]
    newest = ", ".join(f"run-{number}" for number in range(20))
    assert [" ".join(line.split()) for line in lines] == [
        *("Text", "size 5 bytes", "lines 2", "characters 4", "distinct characters 3", "languages kk, tr"),
        *("spelling IPA", f"30 runs trained on it: {newest}, …", "The most frequent characters"),
        *("occurrences share", "a U+0061 2 50.0%", "U+0020 1 25.0%", "U+0301 1 25.0%"),
    ]
    unused = [*plain_lines(corpus_report(OVERVIEW, statistics, []))]
    assert "No run was trained on it" in unused and not any(line.startswith("spelling") for line in unused)


def test_run__has_the_memory_of_each_gpu() -> None:
    memory = (2_000_000_000, 5_000, 12)
    run = changed(RUNNING, gpu_memory_bytes=memory)
    lines = [" ".join(line.split()) for line in plain_lines(run_report(run))]
    assert "GPU memory 2.0 GB, 5.0 kB, 12 B" in lines
