"""The stores of an installation, by kind, and their copies in the object store."""

from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.readings import ReadingStore
from trainer.artifacts.replication import Replication
from trainer.artifacts.runs import RunStore
from trainer.artifacts.studies import StudyStore
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.data.corpora import CorpusStore


class Stores:
    """The runs, other jobs and corpora of an installation on this disk."""

    def __init__(self, settings: Settings) -> None:
        root = settings.app.artifacts_root
        self.runs = RunStore(root)
        self.tokenizers = TokenizerStore(root)
        self.experiments = ExperimentStore(root)
        self.studies = StudyStore(root)
        self.batteries = BatteryStore(root)
        self.readings = ReadingStore(root)
        self.corpora = CorpusStore(settings)
        self.looks = LookLedger.of(settings)
        self.replication = Replication(settings)
