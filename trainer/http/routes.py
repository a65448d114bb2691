"""All operations over HTTP, in the order of the table of operations."""

from collections.abc import Mapping

from trainer.contracts.corpora import UploadStatus
from trainer.contracts.http_answers import Curve
from trainer.contracts.operations import OPERATIONS as ROWS
from trainer.http.completions import Completion, ModelEntry, ModelList, complete, get_model, list_models
from trainer.http.curves import get_curve
from trainer.http.downloads import download_file
from trainer.http.event_streams import stream_events, stream_logs
from trainer.http.operations import HttpOperation, of_lab, own
from trainer.http.service import Health, Readiness, get_health, get_metrics, get_readyz
from trainer.http.uploads import send_portion
from trainer.lab.calls import CALLS

_OWN: Mapping[str, HttpOperation] = {
    one.row.name: one
    for one in (
        own("get_healthz", get_health, Health),
        own("get_health", get_health, Health),
        own("get_readyz", get_readyz, Readiness),
        own("get_metrics", get_metrics),
        own("stream_logs", stream_logs),
        own("stream_events", stream_events),
        own("get_curve", get_curve, Curve),
        own("list_models", list_models, ModelList),
        own("get_model", get_model, ModelEntry),
        own("complete", complete, Completion),
        own("send_portion", send_portion, UploadStatus),
        own("download_file", download_file),
    )
}
OPERATIONS: tuple[HttpOperation, ...] = tuple(
    _OWN.get(row.name) or of_lab(CALLS[row.name]) for row in ROWS if row.route
)
