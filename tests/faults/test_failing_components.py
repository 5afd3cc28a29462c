"""Trials that go wrong in every way a component can: the search goes on, and the table says what happened."""

import json
import os
from collections import Counter

import pytest
from command_line import ended, events, harness
from dataset_files import make_dataset
from processes import copied, kill_a_worker, start, wait_for

# An adapter whose trials are well at its default point and go wrong anywhere else.
FAULTY = '''
"""An adapter that goes wrong (made for tests)."""

import os
import signal
import time

import torch
from torch import Tensor, nn

from ._base import Adapter, Spectrum


class Faulty(Adapter):
    def __init__(self, spectrum: Spectrum, d: int, *, kind: str = "none", power: float = 0.0) -> None:
        super().__init__(spectrum, d)
        self.kind, self.power = kind, power
        self.table = nn.Parameter(torch.randn(self.n, d) * 0.05)

    def forward(self) -> Tensor:
        kind = self.kind
        if kind == "always":
            raise RuntimeError(f"no luck with {self.power}")
        if kind == "constant":
            return self.table[:1].expand(self.n, -1)
        if self.power and self.training:
            if kind == "raises":
                raise KeyError("missing")
            if kind == "nan":
                return self.table * float("nan")
            if kind == "hangs":
                while True:
                    time.sleep(0.1)
            if kind == "aborts":
                os.abort()
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "fills":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            if kind == "eats":
                return self.table + torch.ones(2**44).sum()
        return self.table
'''
KINDS = ["raises", "nan", "hangs", "aborts", "killed", "eats", "fills"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = copied(tmp_path_factory.mktemp("source"))
    (folder / "adapters" / "faulty.py").write_text(FAULTY)
    (folder / "search_spaces" / "adapters" / "faulty.toml").write_text("power = { low = 0.0, high = 2.0 }\n")
    return folder


@pytest.fixture(scope="module")
def ran(source, tmp_path_factory):
    """One bench over all kinds of faults: its home, exit code, stdout and stderr."""
    root = tmp_path_factory.mktemp("trials")
    folder = make_dataset(root / "toy")
    adapters = ",".join(["id", *(f"faulty[kind={kind}]" for kind in [*KINDS, "always", "constant"])])
    words = ["--adapters", adapters, "--trials", "2", "--seeds", "1", "--sampler", "random", "--tracking", "off"]
    words += ["--set", "text.fusion=none", "--watchdog", "20", "--pruner", "none"]
    process = start(root / "home", folder, *words, source=source)
    out, err = process.communicate(timeout=500)
    return root / "home", process.returncode, out, err


def results(home, kind):
    """(status, reason) of a cell's search trials, in the order of their numbers."""
    cell = f"faulty[kind={kind}]"
    started = [e for e in events(home, "started") if e["trial"]["cell"]["adapter"] == cell]
    numbers = {e["id"]: e["number"] for e in started if e["trial"]["role"] == "search"}
    found = {numbers[e["id"]]: e["result"] for e in events(home, "ended") if e["id"] in numbers}
    return [(found[n]["status"], found[n]["reason"]) for n in sorted(found)]


@pytest.mark.slow
def test_every_trial_ends_once_and_the_search_goes_on(ran):
    home, code, _, err = ran
    assert code == 1, f"a cell in which everything fails: {err}"
    assert "Traceback" not in err
    assert max(Counter(ended(home)).values()) == 1
    for kind in KINDS:
        assert [status for status, _ in results(home, kind)] == ["done", "failed"], kind
    cells = json.loads(harness(home, "leaderboard", "--format", "json").stdout)["sections"][0]["rows"]
    states = Counter(row["state"] for row in cells)
    assert states["failed"] == 1, "one bad trial does not take its cell with it"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("raises", ["KeyError: 'missing'"]),
        ("nan", ["loss is not finite at epoch 0"]),
        ("hangs", ["its worker died: no sign of life for 0:00:20 in adapters/faulty.py", "(forward)", "(3 times)"]),
        ("aborts", ["its worker died: Aborted in adapters/faulty.py", "(forward)", "(3 times)"]),
        ("killed", ["its worker died: killed", "out of memory", "(3 times)"]),
        ("eats", ["out of memory", "allocate memory", "(3 times)"]),
        ("fills", ["out of memory: batches of", "in two parts, no other trial on the GPU at the same time"]),
    ],
)
def test_a_failed_trial_says_what_happened_and_where(ran, kind, words):
    home, *_ = ran
    reason = results(home, kind)[1][1]
    for word in words:
        assert word in reason


@pytest.mark.slow
def test_a_cell_in_which_everything_fails_is_a_row_with_its_reason(ran):
    home, _, out, _ = ran
    assert [status for status, _ in results(home, "always")] == ["failed", "failed"]
    assert "failed, RuntimeError: no luck with" in out


@pytest.mark.slow
def test_a_model_whose_scores_are_constant_is_last_and_said_to_have_collapsed(ran):
    home, _, out, _ = ran
    rows = json.loads(harness(home, "leaderboard", "--format", "json").stdout)["sections"][0]["rows"]
    values = {row["cell"]["adapter"]: row["metrics"]["NDCG@10"]["mean"] for row in rows if row["metrics"]}
    constant = values.pop("faulty[kind=constant]")
    assert constant == min([constant, *values.values()])
    assert "collapsed" in out


@pytest.mark.soak
def test_code_edited_under_a_running_bench_ends_the_run_and_no_trial(tmp_path):
    copy, home = copied(tmp_path / "source"), tmp_path / "home"
    folder = make_dataset(tmp_path / "toy", users=400)
    words = ["--adapters", "id,mlp", "--trials", "2", "--epochs", "20", "--sampler", "random", "--pruner", "none"]
    words += ["--threads", str(os.cpu_count())]  # one slot: a killed worker has to be replaced by a new one
    process = start(home, folder, *words, "--tracking", "off", source=copy)
    wait_for(home, "epoch", 2, process)
    with (copy / "adapters" / "mlp.py").open("a") as file:
        file.write("\n# edited\n")
    kill_a_worker(process)  # the next one reads what is on the disk now
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2, err
    assert "cannot take part: its code is" in err.strip().splitlines()[-1]
    assert not [e for e in events(home, "ended") if e["result"]["status"] == "failed"]
    again = start(home, folder, *words[:-2], "--tracking", "off", source=copy)
    _, err = again.communicate(timeout=200)
    assert again.returncode == 0, err
    assert "ran other code" in err
    codes = [e["provenance"]["code"] for e in events(home, "launched")]
    assert len(set(codes)) == 2
