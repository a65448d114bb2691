"""The record of an exported folder."""

from typing import Literal, get_args

from trainer.contracts.base import FileRecord, Frozen, Identifier
from trainer.inference.model_files import ModelFile

FolderFormat = Literal["hf", "torchscript", "onnx"]
FOLDER_FORMATS: tuple[FolderFormat, ...] = get_args(FolderFormat)
RECORD_FILE = "export.json"


class ExportRecord(Frozen):
    """`export.json`: the files of the folder, and the run that it was exported from."""

    schema_version: Literal[1] = 1
    format: FolderFormat
    run_id: Identifier
    model: ModelFile
    files: tuple[FileRecord, ...]
