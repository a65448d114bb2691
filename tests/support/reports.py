"""Reports of one result of each kind."""

from collections.abc import Mapping

from tests.support.battery_results import SEVERAL
from tests.support.development_results import DEVELOPMENT, NO_ITEMS
from tests.support.experiment_results import with_batteries
from tests.support.measured_runs import line_losses, measured
from trainer.contracts.reports import Report
from trainer.reports.battery_report import battery_report
from trainer.reports.comparison import compare
from trainer.reports.comparison_report import comparison_report
from trainer.reports.development_report import development_report
from trainer.reports.experiment_report import experiment_report

WORSE = measured("new", summary={"loss": 2.1, "lines": line_losses(2.1, 0.2)}, learning_rate=0.1)
REPORTS: Mapping[str, Report] = {
    "battery": battery_report(SEVERAL),
    "development": development_report(DEVELOPMENT, NO_ITEMS),
    "experiment": experiment_report(with_batteries()),
    "comparison": comparison_report(compare([WORSE, measured("old")], split="test", tolerance=0.01)),
}
