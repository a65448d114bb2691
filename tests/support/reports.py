"""Reports of one result of each kind."""

from collections.abc import Mapping

from tests.support.battery_results import SEVERAL
from tests.support.development_results import DEVELOPMENT, NO_ITEMS
from tests.support.experiment_results import with_batteries
from tests.support.measured_runs import line_losses, measured
from tests.support.messages import OVERVIEW, tokenizer
from trainer.contracts.base import changed
from trainer.contracts.corpora import CorpusStatistics
from trainer.contracts.reports import Report
from trainer.contracts.tokenizers import TokenizerStats
from trainer.reports.battery_report import battery_report
from trainer.reports.comparison import compare
from trainer.reports.comparison_report import comparison_report
from trainer.reports.corpus_report import corpus_report
from trainer.reports.development_report import development_report
from trainer.reports.experiment_report import experiment_report
from trainer.reports.tokenizer_report import tokenizer_report

WORSE = measured("new", summary={"loss": 2.1, "lines": line_losses(2.1, 0.2)}, learning_rate=0.1)
STATS = TokenizerStats(
    coverage=0.99,
    oov_rate=0.01,
    unknown_char_share=0.02,
    token_count=1203,
    char_coverage=0.95,
    avg_tokens_per_char=0.512,
    avg_tokens_per_word=2.25,
    holdout_lines=31,
)
REPORTS: Mapping[str, Report] = {
    "battery": battery_report(SEVERAL),
    "development": development_report(DEVELOPMENT, NO_ITEMS),
    "experiment": experiment_report(with_batteries()),
    "comparison": comparison_report(compare([WORSE, measured("old")], split="test", tolerance=0.01)),
    "tokenizer": tokenizer_report(changed(tokenizer("kk", "completed"), vocab_size=29, stats=STATS)),
    "corpus": corpus_report(
        changed(OVERVIEW, notes=("A folder of three files.",)),
        CorpusStatistics(2771, 109_990, 79, (("\u0430", 12_603), (" ", 14_068))),
        ["kk-lstm", "kk-gpt2"],
    ),
}
