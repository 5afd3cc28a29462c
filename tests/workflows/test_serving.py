"""Exported models served over HTTP: examples/serve.py and the MLflow command of docs/serving.md."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests
import small_homes
import torch
from command_line import environment
from command_line import harness as command
from dataset_files import make_dataset
from mlflow_server import free_port

from harness.training import exported_model

ROOT = Path(__file__).parents[2]
BUDGET = small_homes.BUDGET.__class__("made", trials=1, epochs=1, patience=1, seeds=1)
HISTORIES = [["i001", "i002"], ["i003"], []]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of `id` under SASRec, with its MLflow model and ONNX graph."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("serving")
    dataset = make_dataset(root / "toy", items=40)
    (root / "home").mkdir()
    small_homes.run(small_homes.request(root / "home", dataset, "id", budget=BUDGET))
    done = command(root / "home", "export", "sasrec/id", "--output", str(root / "model"), "--mlflow", "--onnx")
    assert done.returncode == 0, done.stderr
    assert "backbone.onnx: differs from PyTorch by at most" in done.stdout
    return root / "model"


def test_the_onnx_graph_of_the_page_scores_items_as_recommend_does(exported):
    session = onnxruntime.InferenceSession(str(exported / "backbone.onnx"), providers=["CPUExecutionProvider"])
    ids = json.loads((exported / "items.json").read_text())
    _, scores = session.run(None, {"items": np.array([[ids.index("i001") + 1, ids.index("i002") + 1]])})
    [answer] = exported_model.load(exported).recommend([["i001", "i002"]], 5)
    best = [ids[i] for i in np.argsort(-scores[0]) if ids[i] not in ("i001", "i002")]
    assert best[:5] == answer.items


@contextmanager
def served(words, url, folder):
    """Run a server until the block ends; wait until it answers at `url`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    settings = environment(folder) | {"PYTHONPATH": str(ROOT), "PATH": path}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(words, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not answers(url):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def answers(url):
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def test_the_fastapi_example_answers_as_recommend_and_refuses_bad_input(exported, tmp_path):
    base = f"http://127.0.0.1:{(port := free_port())}"
    words = [sys.executable, str(ROOT / "examples" / "serve.py"), str(exported), "--port", str(port)]
    with served(words, f"{base}/health", tmp_path):
        assert requests.get(f"{base}/health", timeout=10).json()["items"] == 40
        answer = requests.post(f"{base}/recommend", json={"histories": HISTORIES, "k": 4}, timeout=10)
        assert answer.status_code == 200
        expected = exported_model.load(exported).recommend(HISTORIES, 4)
        for actual, wanted in zip(answer.json(), map(vars, expected), strict=True):
            assert actual["scores"] == pytest.approx(wanted["scores"], rel=1e-5)
            assert {**actual, "scores": 0} == {**wanted, "scores": 0}
        for body, match in (
            ({"histories": [["i001", "nowhere"]]}, "not in the catalogue, such as 'nowhere'"),
            ({"histories": [["i001"]], "k": 0}, "greater than or equal to 1"),
            ({"histories": [["i001"]], "k": True}, "valid integer"),
            ({"histories": "i001"}, "valid list"),
            ({"histories": [[1]]}, "valid string"),
            ({"histories": []}, "at least 1"),
            ({"histories": [["i001"]], "top": 3}, "not permitted"),
            ({}, "Field required"),
        ):
            refused = requests.post(f"{base}/recommend", json=body, timeout=10)
            assert (refused.status_code, match in refused.text) == (422, True), refused.text
        garbage = requests.post(f"{base}/recommend", data="{", timeout=10)
        assert garbage.status_code == 422


def test_the_fastapi_example_reports_a_folder_that_is_no_export_in_one_line(tmp_path):
    words = [sys.executable, str(ROOT / "examples" / "serve.py"), str(tmp_path)]
    settings = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=settings, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "is not an exported model" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_mlflow_commands_of_the_page_work(exported, tmp_path):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    [serve] = re.findall(r"^mlflow (models serve .*)$", page, re.MULTILINE)
    [curl] = re.findall(r"^curl (.*5001/invocations.*)$", page, re.MULTILINE)
    port = str(free_port())
    words = shlex.split(serve.replace("model/mlflow", str(exported / "mlflow")).replace("5001", port))
    with served([sys.executable, "-m", "mlflow", *words], f"http://127.0.0.1:{port}/ping", tmp_path):
        asked = shlex.split(curl.replace("5001", port))
        body = asked[asked.index("-d") + 1].replace("B00004Z5M1", "i001").replace("B00006RVPW", "i002")
        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"http://127.0.0.1:{port}/invocations", data=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        [expected] = exported_model.load(exported).recommend([["i001", "i002"]], 3)
        assert answer.json()["predictions"][0]["items"] == expected.items
