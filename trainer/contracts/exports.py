"""Exports over HTTP: the request, and the status with the file."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from trainer.contracts.base import Frozen, Identifier, ModelName, Sha256, Timestamp
from trainer.contracts.job_status import JobPage, JobStatus

ModelFormat = Literal["hf", "pt2", "torchscript", "onnx", "arpa", "archive"]
CurveFormat = Literal["csv", "tensorboard", "trackio"]
ExportFormat = Literal[ModelFormat, CurveFormat]

FORMAT_WORDS: Mapping[ExportFormat, str] = {
    "hf": "for transformers",
    "onnx": "for onnxruntime",
    "pt2": "for torch: transformers, complete texts",
    "torchscript": "for torch; deprecated by PyTorch",
    "archive": "all of the run, for mt import",
    "arpa": "n-grams of an ngram model, for KenLM and SRILM",
    "csv": "curve and settings for spreadsheets",
    "tensorboard": "curve and settings",
    "trackio": "curve",
}
"""Programs and purposes that a format is for, the usual ones first."""
CHECKPOINT_FORMATS: tuple[ExportFormat, ...] = ("hf", "pt2", "torchscript", "onnx")
"""Formats that are also written from a checkpoint; the others are about all of a run."""
CURVE_FORMATS: tuple[ExportFormat, ...] = ("csv", "tensorboard", "trackio")
"""Formats that have the curve of a run, also before its end."""


class ExportRequest(Frozen):
    format: ExportFormat
    """hf: for transformers; pt2: for torch; arpa: for KenLM; archive: for `mt import`; csv, tensorboard, trackio:
    curve."""
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+-]{1,64}$")] | None = None
    """License for the model card, such as cc0-1.0."""


class ExportedFile(Frozen):
    name: str
    """RUN.tar for an archive; else a ZIP whose files are in one folder, RUN-FORMAT."""
    bytes: int
    sha256: Sha256
    url: str
    """Address on this server from which anybody can download the file; needs no API key."""
    expires_at: Timestamp
    """When the address ends, and the file is deleted."""


class ExportStatus(JobStatus):
    export_id: Identifier
    run_id: ModelName
    """The run, or its checkpoint as RUN@1200."""
    format: ExportFormat
    license: str | None = None
    file: ExportedFile | None = None
    """The file of a completed export."""


class ExportList(JobPage):
    exports: tuple[ExportStatus, ...]
