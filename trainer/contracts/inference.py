"""All kinds of inference requests: their names and their stored records."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.chats import ChatRecord
from trainer.contracts.completions import CompletionRecord
from trainer.contracts.evaluations import EvalRecord
from trainer.contracts.generations import GenerateRecord
from trainer.contracts.items import ItemsRecord
from trainer.contracts.predictions import PredictRecord
from trainer.contracts.scores import ScoreRecord
from trainer.contracts.sections import SectionsRecord
from trainer.contracts.segmentation import SegmentRecord
from trainer.contracts.sequences import SequencesRecord

KindName = Literal[
    "score",
    "sequences",
    "items",
    "segment",
    "generate",
    "complete",
    "predict",
    "chat",
    "evaluate",
    "sections",
]
AnyRecord = Annotated[
    ScoreRecord
    | SequencesRecord
    | ItemsRecord
    | SegmentRecord
    | GenerateRecord
    | CompletionRecord
    | PredictRecord
    | ChatRecord
    | EvalRecord
    | SectionsRecord,
    Field(discriminator="kind"),
]
