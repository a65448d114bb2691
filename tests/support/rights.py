"""The table of rights: each field of an operation that names something, with the rule for others than the owner.

A person has decided each line; the tests walk all fields of all operations, and none may be missing here.
"""

from collections.abc import Iterator, Mapping
from typing import TypeGuard, get_args, get_type_hints

from pydantic import BaseModel, JsonValue

from trainer.contracts.base import Names
from trainer.http.operations import HttpOperation
from trainer.http.routes import OPERATIONS

RULES: Mapping[str, str] = {
    # A text by its hash: as a hash that nobody knows (404) for those who neither sent it nor own a run on it.
    "text": """
        train.corpus train.validation_corpus train.test_corpus
        check_training.corpus check_training.validation_corpus check_training.test_corpus
        score.path evaluate.path_override report_corpus.corpus train_tokenizer.corpora
    """,
    # The same, in requests whose answers have words of the text: a corpus with a name is refused to others, too.
    "quotation": "generate.prompt_path",
    # Deletion: the same for those who have not sent the text.
    "deletion": "delete_corpus.corpus",
    # Fields of trainings, each of which is asked for as those of `train`.
    "training": "start_study.train start_study.settings start_study.space",
    # Weights: for its owner, and with open weights for those who may use the run, if all its texts have names.
    "weights": "train.init_from_run_id check_training.init_from_run_id export_run.run_id",
    # A vocabulary: for the one who trained it, and for those who may name all of its texts.
    "tokenizer": """
        train.tokenizer_id check_training.tokenizer_id get_tokenizer.tokenizer_id report_tokenizer.tokenizer_id
    """,
    # A run: for all users, and where runs are private for its owner.
    "run": """
        get_run.run_id get_manifest.run_id get_files.run_id stream_events.run_id get_config.run_id report_run.run_id
        get_curve.run_id get_request.run_id verify_run.run_id get_latest_evaluation.run_id
        compare_runs.runs report_comparison.runs get_model.model complete.model
        score.run_id sequences.run_id items.run_id segment.run_id generate.run_id predict.run_id chat.run_id
        evaluate.run_id predict_with_newest.run_id start_battery.runs start_reading.runs start_reading.frequencies
    """,
    "group": "get_group.group_id report_group.group_id get_group_curve.group_id",
    # Lists, which have the runs that the caller may see.
    "filter": "list_runs.group list_runs.parent",
    # What only the owner does to a run or a job, or reads of it.
    "owner": """
        cancel_run.run_id resume_run.run_id delete_run.run_id annotate_run.run_id unlock.runs get_logs.run_id
        stream_logs.run_id get_samples.run_id cancel_group.group_id
        get_export.export_id cancel_export.export_id delete_export.export_id
        cancel_verification.verification_id delete_verification.verification_id
        cancel_tokenizer.tokenizer_id delete_tokenizer.tokenizer_id
        cancel_study.study_id delete_study.study_id
        cancel_battery.battery_id delete_battery.battery_id cancel_reading.reading_id delete_reading.reading_id
    """,
    # A job: for all users, and where runs are private for its owner.
    "job": """
        get_verification.verification_id get_study.study_id get_battery.battery_id get_reading.reading_id
        list_files.item_id download_file.item_id
    """,
    # An experiment shows many runs: where runs are private, only admins see it.
    "experiment": "get_experiment.experiment_id",
    "admin": """
        lock_corpus.corpus get_build.build_id cancel_build.build_id delete_build.build_id
        cancel_experiment.experiment_id delete_experiment.experiment_id
        start_experiment.languages.corpus start_experiment.languages.batteries start_experiment.corpora
        start_experiment.models.train start_experiment.models.transfer.train start_experiment.texts.passages
        start_experiment.ratings
    """,
    # A battery of the installation: for all.
    "battery": "start_battery.batteries",
    # An upload of another client does not exist; the hash of a file opens nothing: its bytes are to be sent.
    "upload": "get_upload.upload_id send_portion.upload_id delete_upload.upload_id start_upload.files.sha256",
    # Results of requests to models, by ids that nobody else is told.
    "request": """
        get_score.request_id delete_score.request_id get_sequence_score.request_id delete_sequence_score.request_id
        get_item_table.request_id delete_item_table.request_id get_segmentation.request_id
        delete_segmentation.request_id get_generation.request_id delete_generation.request_id
        get_prediction.request_id delete_prediction.request_id get_evaluation.request_id delete_evaluation.request_id
        get_chat_answer.session_id get_chat_answer.request_id get_chat.session_id delete_chat.session_id
        chat.session_id
        get_score.run_id delete_score.run_id get_sequence_score.run_id delete_sequence_score.run_id
        get_item_table.run_id delete_item_table.run_id get_segmentation.run_id delete_segmentation.run_id
        get_generation.run_id delete_generation.run_id get_prediction.run_id delete_prediction.run_id
        get_evaluation.run_id delete_evaluation.run_id get_chat_answer.run_id get_chat.run_id delete_chat.run_id
    """,
}
TABLE: Mapping[str, str] = {cell: rule for rule, cells in RULES.items() for cell in cells.split()}
"""The rule of each operation and field."""
NAMES_NOTHING: Mapping[str, str] = {
    "WorkerOrder": "name",  # a worker's, by an admin
    "RunsQuery": "corpus owner label search where sort settings cursor",  # words that runs of the list must have
    "TrainRequest": "model_size device label tags",
    "Provenance": "source_corpus",  # free text of the model card
    "SpecialTokens": "bos_token eos_token unk_token pad_token cls_token sep_token mask_token",
    "AnnotationChange": "label note tags",
    "ExportRequest": "license",
    "PredictRequest": "text",
    "UploadRequest": "name language",  # the name of a new corpus
    "UploadedFile": "name modified_at",
    "CorpusText": "name text language",
    "TokenizerTrainRequest": "method label",
    "ExperimentRequest": "name languages models",  # keys of its own
    "LanguageOptions": "branch",
    "TransferOptions": "first",
    "PrimaryTest": "model",  # one of its own models
    "DevelopmentOptions": "words",
    "StudyRequest": "name",
    "BatteryRequest": "columns formulas separator",
    "BatteryFile": "name content battery",  # the name that its items get
    "ReadingRequest": "columns separator",
    "ReadingFile": "name content notes",
    "FileQuery": "path",  # of the list of files of a job
    "ScoreRequest": "text",
    "SequenceParts": "context parts",
    "ItemsRequest": "text_column group_column region_columns occurrence_column context_column separator table",
    "SegmentRequest": "text",
    "GenerateRequest": "stop_sequences banned_tokens alphabet prompt_text",
    "ChatRequest": "stop_sequences banned_tokens alphabet message",
    "CompletionBody": "prompt stop suffix logit_bias user",
}
"""The fields with text that name nothing of the installation, by record."""
_NO_TEXT = (int, float, bool, type(None))


def inputs(operation: HttpOperation) -> Iterator[type[BaseModel]]:
    """Yield the records of the path, the query and the body of an operation."""
    yield from (operation.path_model, operation.query_model)
    if operation.body_model is not None:
        yield operation.body_model


def text_fields(record: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, frozenset[Names]]]:
    """Yield the fields with text of a record and those in it: the field with its record, its path, and its marks."""
    hints: Mapping[str, object] = get_type_hints(record, include_extras=True)
    for name in record.model_fields:
        parts, marks, has_text = [hints[name]], set[Names](), False
        while parts:
            part = parts.pop()
            if isinstance(part, Names):
                marks.add(part)
            elif _is_record(part):
                yield from text_fields(part, f"{path}{name}.")
            else:
                inner: tuple[object, ...] = get_args(part)
                parts += inner
                has_text |= part is JsonValue or (not inner and hasattr(part, "__mro__") and part not in _NO_TEXT)
        if has_text or marks:
            yield f"{record.__name__}.{name}", f"{path}{name}", frozenset(marks)


def _is_record(part: object) -> TypeGuard[type[BaseModel]]:
    return hasattr(part, "__mro__") and hasattr(part, "model_fields")  # an annotated class has the second one only


def cells() -> Iterator[tuple[str, frozenset[Names]]]:
    """Yield each operation over HTTP with each of its fields that name something, and the marks of the field."""
    for operation in OPERATIONS:
        for record in inputs(operation):
            for _, path, marks in text_fields(record):
                if marks:
                    yield f"{operation.row.name}.{path}", marks
