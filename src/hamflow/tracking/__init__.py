"""What happened: JSONL always (the truth), MLflow where there is a store (imported only when needed)."""

from hamflow.pipeline.provenance import run_key
from hamflow.tracking.jsonl import JsonlLog, read_jsonl
from hamflow.tracking.publish import publish
from hamflow.tracking.store import init_store
from hamflow.tracking.stream import RunStream

__all__ = ["JsonlLog", "RunStream", "init_store", "publish", "read_jsonl", "run_key"]
