"""MLflow's store: where it is, whether it answers, creating it once, and the few calls made to it."""

import importlib.util
import logging
import os
import re
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hamflow.errors import UserError
from hamflow.tracking.records import CURVE, KEY_TAG, VARYING, DataInput, Point

DEFAULT_URI, DEFAULT_EXPERIMENT = "sqlite:///mlflow.db", "hamflow"
POINTS_A_BATCH = 1000  # MLflow's limit
LOCK_SECONDS = 60
ANSWER_SECONDS = 5.0  # in which a store must answer at first
SQLITE = "sqlite:///"
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages show runs first, not chats
NOTHING_LOST = "nothing is lost: the JSONL and JSON files are the truth"
PASSWORD = re.compile(r"(://[^/\s:@]*):\S+@")  # of an address, wherever it is quoted
SHA256_TAG = "hamflow.checkpoint_sha256"
CHECKPOINTS = "checkpoints"  # folder of a run's artefacts

# MLflow's own defaults wait up to 120 s for an answer and ask eight times, and print a line for every run that ends.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a job calls nobody but its store
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class TrackingError(UserError):
    """A store of MLflow that is absent, locked, unreachable or of the wrong kind."""


def resolve_uri(uri: str) -> str:
    """The store to use: MLFLOW_TRACKING_URI if set, else `uri`; empty for none."""
    return os.environ.get("MLFLOW_TRACKING_URI") or uri


def resolve_experiment(experiment: str) -> str:
    """MLflow's experiment to use: MLFLOW_EXPERIMENT_NAME if set, else `experiment`."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment


def why_unusable(uri: str) -> str:
    """Why this can be no store here, in words, found without importing MLflow; empty if it can."""
    if not uri:
        return "no store is configured (MLFLOW_TRACKING_URI is not set)"
    if importlib.util.find_spec("mlflow") is None:
        return "mlflow is not installed"
    if uri.startswith("file:") or "://" not in uri:
        return f"'{uri}' is a file store, which MLflow no longer writes"
    return ""


def why_unavailable(uri: str) -> str:
    """`why_unusable`, or that SQLite's file is not there yet."""
    path = sqlite_path(uri)
    if (reason := why_unusable(uri)) or path is None or path.exists():
        return reason
    return f"there is no store {path} (`hamflow publish --init` creates it)"


def why_away(uri: str) -> str:
    """Why the store gives no answer, in words, found within seconds; empty if it does.

    MLflow itself would ask a server that is away for minutes. Its import alone takes seconds, and is not needed here.
    """
    try:
        address, path = urlsplit(uri), sqlite_path(uri)
        port = address.port or PORTS.get(address.scheme.partition("+")[0], 0)
    except ValueError:  # whose text may quote a part of the password
        return f"{shown(uri)} is no address: its host or port cannot be read"
    try:
        if path is not None:
            file = f"{path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(file, ANSWER_SECONDS, uri=True)) as database:
                database.execute("BEGIN IMMEDIATE")
        elif address.scheme in ("http", "https"):
            _ask(uri)
        elif address.hostname:
            socket.create_connection((address.hostname, port), ANSWER_SECONDS).close()
    except (OSError, sqlite3.Error, ValueError) as error:
        return f"{shown(uri)} does not answer: {first_line(error)}"
    return ""


def _ask(uri: str) -> None:
    """Get any answer from a server, 404 and 401 included. Raises OSError if there is none."""
    import requests  # comes with MLflow, and finds proxies and certificates as it does

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS, stream=True).close()
    except requests.exceptions.SSLError:
        return  # the server answers; MLflow will say if the answer is wrong


def shown(uri: str) -> str:
    """The address of a store without the password in it."""
    return PASSWORD.sub(r"\1:***@", uri)


def first_line(error: BaseException) -> str:
    """The first line of an exception, or its kind, without the password that MLflow's messages quote in the address."""
    return shown((str(error).strip() or type(error).__name__).splitlines()[0])


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, None for any other."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def init_store(uri: str) -> bool:
    """Create an SQLite store once. An existing store stays as it is; a server is not asked. Returns whether it was made.

    The store appears by a rename when its tables are complete: processes that create one together corrupt it,
    and one that streams must never meet half a store.

    Raises:
        TrackingError: no uri, a file store, no MLflow, or a file that cannot be made.
    """
    uri = require_usable(uri)
    path = sqlite_path(uri)
    if path is None or path.exists():
        return False
    with locked(uri), explained(uri):
        if path.exists():  # another process was first
            return False
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            connect(f"{SQLITE}{temporary}").search_experiments(max_results=1)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def require_usable(uri: str) -> str:
    """The resolved uri. Raises TrackingError where `why_unusable` has a reason."""
    uri = resolve_uri(uri)
    if reason := why_unusable(uri):
        raise TrackingError(
            reason,
            fix="pip install 'hamflow[pipeline]', and set tracking.uri or MLFLOW_TRACKING_URI, for example "
            "to sqlite:///mlflow.db or a server's http address",
        )
    return uri


def require_answer(uri: str) -> None:
    """Raises TrackingError where `why_away` has a reason."""
    if reason := why_away(uri):
        raise TrackingError(reason, why=NOTHING_LOST, fix="start it, or wait until it is free, then `hamflow publish` again")


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold the lock file beside an SQLite store. Raises TrackingError after a minute of waiting."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise TrackingError(
            f"{path}.lock is held by another process", fix="wait for the other `hamflow publish` to end"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn exceptions of MLflow and its database into a TrackingError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"MLflow's store {shown(uri)} refused: {first_line(error)}",
            why=NOTHING_LOST,
            fix="see that the store is there and not locked, then `hamflow publish` again",
        ) from error


def connect(uri: str) -> Any:
    """An MlflowClient; imports MLflow, which takes seconds."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # the import sets its own
    return MlflowClient(tracking_uri=uri)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """The id of the experiment of that name, created if absent, also beside others that create it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = sqlite_path(uri)
        root = None if path is None else (path.resolve().parent / "mlartifacts").as_uri()
        try:
            return client.create_experiment(name, artifact_location=root, tags=EXPERIMENT_TAGS)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow's experiment '{name}' was deleted",
            why="it takes no runs, and its name stays taken",
            fix=f"`mlflow experiments restore --experiment-id {found.experiment_id}`, or another name in `tracking.experiment`",
        )
    return found.experiment_id


def find_run(client: Any, experiment: str, key: str) -> Any | None:
    """The run of that key, or None."""
    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None


def find_runs(client: Any, experiment: str) -> dict[str, Any]:
    """Every run of the experiment that has a key, by key: one question for any number of runs."""
    runs: dict[str, Any] = {}
    token = None
    while True:
        page = client.search_runs([experiment], f"tags.`{KEY_TAG}` LIKE '%'", max_results=1000, page_token=token)
        runs.update({run.data.tags[KEY_TAG]: run for run in page})
        token = page.token
        if not token:
            return runs


def known_points(client: Any, run: Any, names: Iterable[str]) -> set[Point]:
    """The points that a run has of the named metrics; for each step the latest."""
    points = set()
    for name in set(names) & set(run.data.metrics):
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: (m.step, m.timestamp))
        latest = [list(group)[-1] for _, group in groupby(history, key=lambda m: m.step)]
        points |= {Point(name, metric.value, metric.step) for metric in latest}
    return points


def retrained(points: Iterable[Point], known: Iterable[Point]) -> bool:
    """Whether a training curve contradicts the one that a run has: it is of another training, and needs another run."""
    before = {(point.name, point.step): point.value for point in known}
    curve = [point for point in points if point.name.startswith(CURVE) and point.name not in VARYING]
    return any(before.get((name, step), value) != value for name, value, step in curve)


def write(
    client: Any,
    run_id: str,
    points: Sequence[Point] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write to a run, a thousand points a transaction; parameters and tags come with the last of them."""
    from mlflow.entities import Metric, Param, RunTag

    now = time.time_ns() // 1_000_000
    metrics = [Metric(name, value, now, step) for name, value, step in points]
    while len(metrics) > POINTS_A_BATCH:
        client.log_batch(run_id, metrics=metrics[:POINTS_A_BATCH])
        metrics = metrics[POINTS_A_BATCH:]
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(name, value) for name, value in (params or {}).items()],
        tags=[RunTag(name, value) for name, value in (tags or {}).items()],
    )


def log_data(client: Any, run_id: str, data: DataInput) -> None:
    """Name a data set as an input of a run; a second time changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    dataset = Dataset(data.name, data.digest, data.source_type, data.source, data.schema, data.profile)
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, data.context)])])


def register_checkpoint(client: Any, run_id: str, model: str, path: Path, sha256: str, tags: Mapping[str, str]) -> None:
    """Make a file of weights an artefact of its run, and the next version of a registered model.

    Its folder is named by its sha256: weights that replace it later leave the earlier version's artefact alone. A run
    that has a version of this sha256 gets no other.

    Args:
        model: name of the registered model, made if absent.
        tags: of the version, besides the sha256.
    """
    from mlflow.exceptions import MlflowException

    versions = client.search_model_versions(f"run_id = '{run_id}'")
    if any(version.name == model and version.tags.get(SHA256_TAG) == sha256 for version in versions):
        return
    folder = f"{CHECKPOINTS}/{sha256[:12]}"
    client.log_artifact(run_id, str(path), folder)
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(model, f"runs:/{run_id}/{folder}", run_id, tags={SHA256_TAG: sha256, **tags})
