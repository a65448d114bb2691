"""Export of a run's model to a folder in one of five formats, and loading of such a folder."""

from pathlib import Path

from trainer.artifacts.checkpoints import model_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import require_extra_of
from trainer.contracts.models import NgramConfig, TransformerConfig
from trainer.contracts.runs import EffectiveRequest
from trainer.export import graphs, library_folder
from trainer.export.card import ExportRecord, FolderFormat, passport
from trainer.inference.model_files import TOKENIZER_FOLDER, load_named, model_file
from trainer.models.base import LanguageModel
from trainer.models.ngram import NgramModel
from trainer.ngrams.arpa import arpa_lines
from trainer.system.destination import RECORD_FILE, appearing_at, check_free
from trainer.system.files import DISK, BrokenFile, changed_files, file_records, read_record
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of

ARPA_FILE = "model.arpa"


def export_folder(
    run: RunDirectory,
    to: FolderFormat,
    folder: Path,
    licence: str | None = None,
    *,
    force: bool = False,
    step: int | None = None,
) -> ExportRecord:
    """Write the model of a run, or of its checkpoint of a step, to a new folder, atomically.

    With `force` it replaces an earlier export.

    Raises CONFLICT if the folder exists, UNSUPPORTED_BACKEND if the format needs a package that is not installed,
    MODEL_INCOMPATIBLE if it is not for this family, RUN_NOT_READY for a run that has not completed, and the errors of
    `load_named`.
    """
    if to == "onnx":
        require_extra_of(to)
    manifest, named = run.completed_manifest(), model_of(run, None if step is None else str(step))
    _check_family(manifest.effective, to)
    model, tokenizer = load_named(named)
    file = model_file(named, tokenizer)
    check_free(folder, is_earlier=force and (folder / RECORD_FILE).is_file())
    with appearing_at(folder) as temporary:
        DISK.make_folder(temporary)
        library_folder.write_tokenizer(temporary, model, tokenizer)
        if isinstance(model, NgramModel) and to == "arpa":
            with (temporary / ARPA_FILE).open("w", encoding="utf-8", newline="\n") as arpa:
                arpa.writelines(f"{line}\n" for line in arpa_lines(model.engine, tokenizer.names))
        elif to == "hf" and not isinstance(file.model, NgramConfig):
            library_folder.write_model(temporary, model, file.model, tokenizer)
        elif to == "pt2":
            graphs.write_pt2(temporary, model)
        elif to == "torchscript":
            graphs.write_torchscript(temporary, model)
        else:
            graphs.write_onnx(temporary, model)
        written = (path for path in temporary.rglob("*") if path.is_file())
        files = file_records(temporary, written)
        record = ExportRecord(format=to, run_id=run.run_id, checkpoint=step, model=file, files=files)
        for name, content in passport(manifest, tokenizer.manifest, to, licence, step).items():
            DISK.write(temporary / name, content)  # not in the record: people add their names and words
        DISK.write(temporary / RECORD_FILE, record.model_dump_json(indent=2).encode())
        for path in (*temporary.rglob("*"), temporary):
            DISK.sync(path)
    return record


def _check_family(effective: EffectiveRequest, to: FolderFormat) -> None:
    family = effective.model_family
    if (family == "ngram") != (to == "arpa") or (to == "pt2" and not isinstance(effective.model, TransformerConfig)):
        instead = "arpa or archive" if family == "ngram" else "hf"
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, f"The format `{to}` is not for {family}: take {instead}.")


def load_export(folder: Path) -> tuple[ExportRecord, LanguageModel, Tokenizer]:
    """Read a folder that `export_folder` wrote in format `hf`.

    Raises DATA_NOT_FOUND if there is no such folder, MODEL_LOAD_FAILED if it has another format or was changed.
    """
    if not folder.exists():
        raise AppError(ErrorCode.DATA_NOT_FOUND, f"There is no '{folder}'.")
    try:
        record = read_record(folder / RECORD_FILE, ExportRecord)
    except (OSError, BrokenFile):
        raise AppError(ErrorCode.MODEL_LOAD_FAILED, "Not a recognized export format.") from None
    if record.format != "hf":
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED,
            f"'{folder}' is for other programs, as its README says; what can be loaded here is `--format hf`.",
        )
    changed = changed_files(folder, record.files)
    if changed:
        raise AppError(
            ErrorCode.MODEL_LOAD_FAILED, f"'{folder}' differs from its export: {', '.join(changed)} has changed."
        )
    tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
    return record, library_folder.read_model(folder, record.model, vocabulary_of(tokenizer)), tokenizer
