"""Speed of the MLflow mirror over HTTP: trials per second of `harness sync`, seconds of `leaderboard --from-mlflow`.

The server is a real `mlflow server` over PostgreSQL on loopback (SQLite if there is no PostgreSQL or no psycopg2),
started and stopped here. The home is synthetic: a finished grid whose confirmations have ranks, spectra and weights of
a small catalogue. Each command is a separate process, as a user starts it. Next to wall seconds, the table shows the
CPU seconds of the client and of the server with its database, which remain comparable on a busy machine.

The bound is a client that does nothing but the three calls without which MLflow has no finished run with parameters and
metrics: create, log-batch, update. `bare` sends one tag, parameter and metric, `same values` as many as a trial has;
`sync` has 8 connections.
Workers of the server load their store at their first request; all have done so before anything is measured.

`--large FOLDER` mirrors 50,000 trials to the whole stack of mlflow/ (`_tracking_large.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import _measure
import _tracking_large
import ledger as ledgers
import numpy as np
import requests

ADAPTERS, BACKBONES = "id,svd,mlp,svd_whiten,pca,linear", "sasrec,gru4rec"
SEARCHED, SEEDS, DIM, ITEMS = 6, 2, 64, 1682
GOALS = {"sync": "20 trials/s", "leaderboard --from-mlflow": "4 s for 98 trials"}
API = "/api/2.0/mlflow"
PARAMETERS, METRICS, RECORD = 23, 29, 1950  # of a trial of the synthetic home, on average; the last in bytes
BOUNDS = {  # connections, parameters, metrics, bytes of a tag
    "bound: bare calls": (8, 1, 1, 1),
    **{f"bound: same values, {n} connections": (n, PARAMETERS, METRICS, RECORD) for n in (1, 4, 8, 16)},
}
WATCH = """
import atexit, json, re, runpy, sys, time
from collections import defaultdict
import requests.adapters as adapters
send, calls = adapters.HTTPAdapter.send, defaultdict(lambda: [0, 0.0])
def counted(self, request, **more):
    start = time.monotonic()
    try:
        return send(self, request, **more)
    finally:
        path = re.sub("[?].*", "", re.sub("^.*?/(mlflow(?=-artifacts)|mlflow/)", "", request.path_url))
        call = calls[request.method + " " + re.sub("(artifacts)/.*", r"\\1", path)]
        call[0] += 1
        call[1] += time.monotonic() - start
adapters.HTTPAdapter.send = counted
atexit.register(lambda: print("calls", json.dumps(calls), file=sys.stderr))
runpy.run_module('harness.cli', run_name='__main__')
"""


def fill(home: Path, data: Path, trials: int, seeds: int = SEEDS) -> int:
    """Write a home with at least `trials` finished trials, `seeds` confirmations a cell; returns their number."""
    from dataclasses import replace

    from safetensors.numpy import save_file

    from harness.record import artifacts
    from harness.record import ledger as records
    from harness.record.segments import Segment
    from harness.search import plan
    from harness.system import checksums
    from harness.types import BUDGETS, Engine, PrepSpec
    from harness.workflows import provenance

    cells = len(ADAPTERS.split(",")) * len(BACKBONES.split(","))
    count = SEARCHED if trials < 100 else max(1, round(trials / cells) - seeds)
    budget = replace(BUDGETS["quick"], trials=count, epochs=ledgers.EPOCHS, seeds=seeds)
    prep, engine = PrepSpec(kcore=0), Engine("random", "median")
    request = plan.Request(home, str(data), ADAPTERS, BACKBONES, "noise", budget=budget, prep=prep, engine=engine)
    grid = plan.make(request, records.Ledger())
    os.fsync = lambda handle: None  # a synthetic ledger need not survive a power failure
    segment, rng, made = Segment(home), np.random.default_rng(1), 0
    segment.append("launched", **provenance.launch(grid, {}).to_json())
    weights = {"items.weight": rng.random((ITEMS, DIM), dtype=np.float32)}
    spectrum = {name: list(np.round(np.sort(rng.random(DIM))[::-1], 9)) for name in ("start", "end")}
    for study in grid.studies:
        searched = [study.trial("search", 0, study.space.default | {"train.lr": x}) for x in rng.random(study.trials)]
        values = rng.random(len(searched))
        for number, (trial, value) in enumerate(zip(searched, values, strict=True)):
            ledgers.record(segment, trial, study.id, number, float(value))
        winner = study.trial("confirm", 0, {}) if study.cell.is_baseline else searched[int(values.argmax())]
        for number, trial in enumerate(study.confirmations(winner)):
            ledgers.record(segment, trial, study.id, number, float(rng.random()))
            folder = artifacts.artifact_folder(home, trial.id)
            folder.mkdir(parents=True)
            place = rng.integers(1, ITEMS, 943).astype(np.int32)
            ledgers.pl.DataFrame({"user": np.arange(943, dtype=np.int32), "low": place, "high": place}).write_parquet(
                folder / artifacts.RANKS
            )
            (folder / "spectrum.json").write_text(json.dumps(spectrum))
            save_file(weights, str(folder / artifacts.WEIGHTS))
            checksums.seal(folder)
            made += 1
        made += len(searched)
    segment.append("finished", ran=made)
    segment.close()
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """Start PostgreSQL in a folder; yields the URI of its database and the process id. Stops it at the end."""
    account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())  # it refuses to run as root
    who: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid} if os.getuid() == 0 else {}
    folder.mkdir()
    shutil.chown(folder, account.pw_uid, account.pw_gid)
    port, data = free_port(), folder / "data"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder} | who
    make = ["initdb", "--pgdata", str(data), "--username", "mlflow", "--auth", "trust", "--no-sync"]
    subprocess.run([shutil.which("initdb") or "", *make[1:]], check=True, **quiet)
    command = ["postgres", "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
    server = subprocess.Popen([shutil.which("postgres") or "", *command[1:]], start_new_session=True, **quiet)
    try:
        uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        deadline = time.monotonic() + 60
        while not _accepts(port) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield uri, server.pid
    finally:
        server.send_signal(signal.SIGINT)  # "fast" shutdown
        server.wait(60)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str, list[int]]]:
    """Start an MLflow server; yields its URI, the kind of its database and the ids of the started processes."""
    folder.chmod(0o711)  # the account of PostgreSQL must reach its folder
    if all(map(shutil.which, ("initdb", "postgres"))) and find_spec("psycopg2"):
        with postgres(folder / "postgres") as (store, pid), _mlflow(folder, store) as (uri, mlflow):
            yield uri, "PostgreSQL", [pid, mlflow]
    else:
        with _mlflow(folder, f"sqlite:///{folder}/mlflow.db") as (uri, mlflow):
            yield uri, "SQLite", [mlflow]


@contextmanager
def _mlflow(folder: Path, store: str) -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # as in mlflow/compose.yaml
    with open(folder / "mlflow.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if requests.get(f"{uri}/health", timeout=5).ok:
                    break
            except requests.RequestException:
                time.sleep(0.5)
        else:
            raise SystemExit(f"the MLflow server did not start: {(folder / 'mlflow.log').read_text()[-2000:]}")
        yield uri, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def tree_cpu(roots: list[int]) -> float:
    """CPU seconds that processes and their descendants have used, from /proc."""
    tick, parents = os.sysconf("SC_CLK_TCK"), {}
    used: dict[int, float] = defaultdict(float)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(entry.parent.name)
        parents[pid] = int(words[1])
        used[pid] = sum(map(int, words[11:15])) / tick  # with children that have ended
    inside = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in inside and pid not in inside}:
        inside |= more
    return sum(used[pid] for pid in inside)


def post(session: requests.Session, uri: str, call: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = session.post(f"{uri}{API}/{call}", json=body, timeout=60)
    reply.raise_for_status()
    return reply.json()


def wake(uri: str, servers: list[int]) -> None:
    """Send requests on new connections, so that every worker loads its store, and wait until the server is idle."""

    def ask(_: int) -> None:
        headers = {"Connection": "close"}
        requests.post(f"{uri}{API}/experiments/search", json={"max_results": 1}, headers=headers, timeout=60)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(64)))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        before = tree_cpu(servers)
        time.sleep(2)
        if tree_cpu(servers) - before < 0.1:
            break


def bound(uri: str, trials: int, connections: int, values: tuple[int, int, int]) -> None:
    """Write runs as fast as a client can that has nothing else to do. values: parameters, metrics, bytes of a tag."""
    parameters, metrics, record = values
    params = [{"key": f"p{i}", "value": str(i / 7)} for i in range(parameters)]
    points = [{"key": f"m{i}", "value": i / 7, "timestamp": 1_700_000_000_000, "step": 0} for i in range(metrics)]
    tags = [{"key": "record", "value": "x" * record}]
    sessions = threading.local()

    def write(number: int) -> None:
        if not hasattr(sessions, "own"):
            sessions.own = requests.Session()
        session = sessions.own
        about = {"experiment_id": experiment, "run_name": str(number), "start_time": 1, "tags": tags}
        run = post(session, uri, "runs/create", about)["run"]["info"]["run_id"]
        post(session, uri, "runs/log-batch", {"run_id": run, "params": params, "metrics": points})
        post(session, uri, "runs/update", {"run_id": run, "status": "FINISHED", "end_time": 2})

    with requests.Session() as session:
        experiment = post(session, uri, "experiments/create", {"name": f"bound {os.getpid()}"})["experiment_id"]
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(write, range(trials)))


def measure(home: Path, servers: list[int], *words: str, code: Sequence[str] = ("-c", WATCH)) -> dict[str, Any]:
    """Run a command of harness; returns its wall seconds, CPU seconds and HTTP calls by kind."""
    environment = os.environ | {"HARNESS_HOME": str(home), "PYTHONPATH": str(_measure.HERE.parent)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    at_server = tree_cpu(servers)
    command = [sys.executable, *code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    client = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    calls = json.loads(done.stderr.rpartition("calls ")[2] or "{}")
    return {"wall": wall, "client": client, "server": tree_cpu(servers) - at_server, "calls": calls, "out": done.stdout}


def row(command: str, trials: int, found: dict[str, Any]) -> dict[str, object]:
    calls = sum(count for count, _ in found["calls"].values())
    wall = found["wall"]
    return {
        "command": command,
        "trials": trials,
        "wall s": wall,
        "trials/s": trials / wall,
        "client CPU s": found["client"],
        "server CPU s": found["server"],
        "server CPU ms per trial": 1000 * found["server"] / trials,
        "requests": calls,
        "requests per trial": calls / trials,
        "goal": GOALS.get(command, ""),
    }


def large(options: argparse.Namespace) -> None:
    folder = options.large.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data" if (folder / "data").exists() else ledgers.dataset(folder / "data")
    parts = _tracking_large.run(folder, data, options.trials or 50_000, options.minutes)
    if parts is None:
        print(f"Time is up; the same command goes on. See {folder / 'progress.json'}.")
    elif options.print:
        print("\n\n".join(parts))
    else:
        _measure.write("tracking-large", "A large grid mirrored to MLflow", *parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, help="default: 98; with --large, 50000")
    parser.add_argument("--large", type=Path, metavar="FOLDER", help="mirror many trials; resumes a stopped run")
    parser.add_argument("--minutes", type=float, default=600, help="with --large: stop after this time")
    parser.add_argument("--print", action="store_true", help="print the result instead of writing it")
    parser.add_argument("--fill", nargs=3, metavar=("HOME", "DATA", "TRIALS"), help="for internal use")
    parser.add_argument(
        "--bound", nargs=6, metavar="URI TRIALS CONNECTIONS PARAMS METRICS BYTES", help="for internal use"
    )
    options = parser.parse_args()
    if options.bound:
        uri, trials, connections, *values = options.bound
        return bound(uri, int(trials), int(connections), (int(values[0]), int(values[1]), int(values[2])))
    if options.fill:
        return print(fill(Path(options.fill[0]), Path(options.fill[1]), int(options.fill[2])))
    if options.large:
        return large(options)
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch)) as (uri, database, pids):
        home, data = Path(scratch) / "home", ledgers.dataset(Path(scratch) / "data")
        command = [sys.executable, __file__, "--fill", str(home), str(data), str(options.trials or 98)]
        trials = int(subprocess.check_output(command))
        wake(uri, pids)
        bounds = {}
        for name, (connections, *values) in BOUNDS.items():
            words = [__file__, "--bound", uri, *map(str, (trials, connections, *values))]
            bounds[name] = measure(home, pids, code=words) | {"calls": {"all": [3 * trials, 0.0]}}
        local = measure(home, pids, "leaderboard", "--format", "csv")
        sync = measure(home, pids, "sync", "--tracking", uri)
        table = measure(home, pids, "leaderboard", "--format", "csv", "--from-mlflow", uri)
        again = measure(home, pids, "sync", "--tracking", uri)
    if table["out"] != local["out"]:
        raise SystemExit("The table from MLflow differs from the one from the ledger.")
    rows = [row("sync", trials, sync), row("leaderboard --from-mlflow", trials, table)]
    rows += [row(name, trials, found) for name, found in bounds.items()]
    kinds = [
        {"command": name, "request": kind, "calls": count, "seconds per call": seconds / count}
        for name, found in (("sync", sync), ("leaderboard", table), ("sync of nothing", again))
        for kind, (count, seconds) in sorted(found["calls"].items())
    ]
    about = (
        f"MLflow over {database}. The table from the ledger takes {local['wall']:.1f} s ({local['client']:.1f} s of "
    )
    about += (
        f"CPU); a sync with nothing to write, {again['wall']:.1f} s. Load of the machine: {os.getloadavg()[0]:.0f}."
    )
    share = {n: [sync[key] / bounds[n][key] for key in ("server", "wall")] for n in bounds if BOUNDS[n][0] == 8}
    about += "".join(
        f" `sync` takes {cpu:.2f} x the server's CPU seconds and {wall:.2f} x the wall seconds of the {name}."
        for name, (cpu, wall) in share.items()
    )
    parts = about, _measure.table(rows), _measure.table(kinds)
    print("\n\n".join(parts)) if options.print else _measure.write("tracking", "The MLflow mirror over HTTP", *parts)


if __name__ == "__main__":
    main()
