"""A real MLflow store in a folder, written by our tracker and read back by MLflow's own client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from lilliput.errors import LilliputError

Session = Callable[..., Any]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return mlflow.MlflowClient(uri)


def shown(client: mlflow.MlflowClient) -> dict[str, Run]:
    """All runs by their name; a name that is there twice is an error."""
    experiment = client.get_experiment_by_name("lilliput")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(set(names)) == len(names)
    return dict(zip(names, runs, strict=True))


def test_a_run_in_two_sessions_is_one_run(
    session: Session, client: mlflow.MlflowClient, tmp_path: Path
):
    session("first", track=["mlflow"])
    half = shown(client)["run"]
    assert half.info.status == "KILLED"
    session("second", track=["mlflow"])
    found = shown(client)
    assert set(found) == {"run", "small", "large"}
    whole = found["run"]
    assert (whole.info.run_id, whole.info.status) == (half.info.run_id, "FINISHED")
    assert whole.data.params == {
        "budget.max_drop": "1.0",
        "seed": "3",
        "stages.1.quantize.bits": "8",
    }
    assert whole.data.tags["lilliput.recommended"] == "small"
    assert whole.data.tags["lilliput.folder"] == str(tmp_path / "run")
    assert whole.data.metrics == {"loss/a": 1.0, "stage seconds/1 quantize": 7.5}
    losses = client.get_metric_history(whole.info.run_id, "loss/a")
    assert [(m.step, m.value) for m in losses] == [(1, 2.0), (2, 1.0)]
    documents = {file.path for file in client.list_artifacts(whole.info.run_id)}
    assert documents == {"recipe.yaml", "report.md", "report.html", "front.csv"}


def test_candidates_are_runs_below_it(session: Session, client: mlflow.MlflowClient):
    session("first", "second", track=["mlflow"])
    found = shown(client)
    small = found["small"]
    assert small.data.tags["mlflow.parentRunId"] == found["run"].info.run_id
    assert small.info.status == "FINISHED"
    assert small.data.metrics == {
        "bytes": 10,
        "latency_ms": 2,
        "latency_ms_low": 1.5,
        "latency_ms_high": 2.5,
        "metric": 90,
    }
    assert small.data.params["quantize.bits"] == "8"
    assert small.data.params["file"] == "files/small.bin"


def test_a_run_that_was_deleted_there_is_shown_anew(session: Session, client: mlflow.MlflowClient):
    session("first", track=["mlflow"])
    gone = shown(client)["run"].info.run_id
    client.delete_run(gone)
    session("second", track=["mlflow"])
    whole = next(
        run
        for run in client.search_runs([client.get_run(gone).info.experiment_id])
        if run.info.run_name == "run"
    )
    assert whole.info.run_id != gone
    assert whole.data.metrics["loss/a"] == 1.0


def test_the_experiment_and_odd_names(
    session: Session, client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from lilliput.track.mlflow import MLflow

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    tracker = MLflow(tmp_path, {"a[0] %": "x" * 600}, {})
    run = client.get_run(tracker.stored["run"])
    assert client.get_experiment(run.info.experiment_id).name == "mine"
    assert run.data.params == {"a_0_ _": "x" * 500}


def test_a_server_that_is_not_there_is_an_error_before_the_work(
    session: Session, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(LilliputError, match=r"MLflow at http://127.0.0.1:9 takes no run: ") as told:
        session("first", track=["mlflow"])
    assert "set MLFLOW_TRACKING_URI=http://SERVER:PORT" in str(told.value)
    assert str(told.value).endswith("run --track mlflow")
