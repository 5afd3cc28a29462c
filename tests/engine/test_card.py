"""Trials that share a GPU, and what one does when its memory runs out. There is no GPU here: the errors are raised by
a patched training step, the locks are real."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_splits import a_split, random_histories
from small_trials import a_trial

from harness.engine import worker
from harness.engine.card import ALLOCATOR, Attempt, Card, CardLock, exhausted
from harness.engine.slots import Layout
from harness.engine.worker import Recorder, SharedData, Worker
from harness.engine.worker_reports import Ended, Epoch
from harness.system.code_hash import code_hash
from harness.training import ensemble, trial
from harness.types import Cell

SPAWN = multiprocessing.get_context("spawn")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_only_a_lack_of_the_gpus_memory_is_one():
    assert exhausted(FULL)
    assert exhausted(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not exhausted(MemoryError())
    assert not exhausted(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not exhausted(ValueError("CUDA out of memory"))


@pytest.mark.parametrize(
    ("shared", "trains", "expected"),
    [
        (True, True, [Attempt(), Attempt(True), Attempt(True, 2), None]),
        (False, True, [Attempt(), Attempt(False, 2), None]),
        (True, False, [Attempt(), Attempt(True), None]),
        (False, False, [Attempt(), None]),
    ],
)
def test_attempts_need_less_and_less_and_end(shared, trains, expected):
    attempts = [Attempt()]
    while (last := attempts[-1]) is not None:
        attempts.append(last.next(shared, trains))
    assert attempts == expected


# The lock.


def taken(lock, alone, order, name, leave):
    """Take the lock in a thread; put its name into `order` once it is held, and hold it until `leave` is set."""

    def run():
        with lock.hold(alone, waits[name].set, lambda: order.append(f"{name} gives back")):
            order.append(name)
            held[name].set()
            assert leave.wait(60)

    waits, held = taken.waits, taken.held
    waits[name], held[name] = threading.Event(), threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    return thread


taken.waits, taken.held = {}, {}


def test_trials_side_by_side_hold_it_together_and_one_alone_waits_for_them(tmp_path):
    lock, order = CardLock(tmp_path, "card"), []
    leave = {name: threading.Event() for name in ("a", "b", "alone", "late")}
    threads = []
    for name in ("a", "b"):
        threads.append(taken(lock, False, order, name, leave[name]))
        assert taken.held[name].wait(60), "two hold it at the same time"
    threads.append(taken(lock, True, order, "alone", leave["alone"]))
    assert taken.waits["alone"].wait(60), "it waits, and says that it lives"
    leave["a"].set()
    threads[0].join(60)
    threads.append(taken(lock, False, order, "late", leave["late"]))
    assert taken.waits["late"].wait(60), "one that comes later waits behind it, though 'b' still holds the lock"
    assert not taken.held["alone"].is_set()
    leave["b"].set()
    assert taken.held["alone"].wait(60)
    assert not taken.held["late"].is_set()
    leave["alone"].set()
    assert taken.held["late"].wait(60)
    leave["late"].set()
    for thread in threads:
        thread.join(60)
    assert order[:2] == ["a", "b"]
    assert order[2:] == ["a gives back", "b gives back", "alone", "alone gives back", "late"], "none waited for 'late'"


def test_a_card_is_free_after_the_process_that_had_it_alone_is_killed(tmp_path):
    code = (
        "import sys, time, pathlib\nfrom harness.engine.card import CardLock\n"
        "with CardLock(pathlib.Path(sys.argv[1]), 'card').hold(True, print, print):\n"
        "    print('held', flush=True)\n    time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waits, held = threading.Event(), threading.Event()

    def run():
        with CardLock(tmp_path, "card").hold(False, waits.set, lambda: None):
            held.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert waits.wait(60)
        assert not held.is_set()
    finally:
        holder.kill()
        holder.wait()
    thread.join(60)
    assert held.is_set()


def test_trials_with_a_part_of_a_gpu_share_the_lock_of_that_gpu(tmp_path, monkeypatch):
    """CUDA, which this machine lacks, is in the words of `torch.cuda`."""
    monkeypatch.setattr("harness.engine.card.tempdirs.tempfile.gettempdir", lambda: str(tmp_path))
    assert Card.of(0.0).cuda is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("GPU-a", "GPU-b"):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index, name=name: SimpleNamespace(uuid=name))
        assert Card.of(1.0).lock is None, "no other trial is there"
        first, second = Card.of(0.25), Card.of(0.5)
        assert first.lock is not None
        assert second.lock is not None
        assert first.lock.turn == second.lock.turn
        assert name in first.lock.turn.name
    assert Card.of(0.0).cuda is None, "a trial without a share stays on the CPU"


# The worker.


class Beats:
    """A watchdog that never bites."""

    def __init__(self, seconds):
        self.count = 0

    def start(self, longest):
        pass

    def beat(self):
        self.count += 1

    stop = close = lambda self: None


def make_worker(home: Path, lock: CardLock | None, post=None) -> Worker:
    split, _ = a_split(random_histories(40, 30), 30)
    recorder = Recorder(str(home))
    splits = {("0123456789ab", role, 0): split for role in ("search", "confirm")}
    shared = SharedData(splits, {}, {"0123456789ab": 30}, None, Layout(2, 1, 0.5), code_hash(), 0.0)
    post = post or (lambda method, *arguments: getattr(recorder, method)(*arguments))
    made = Worker(shared, lambda value: value, post, ("here", 1), 2)
    made.card = Card(lock)
    return made


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(worker, "Watchdog", Beats)
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker, "COMPONENTS", ())
    monkeypatch.setattr(worker, "SAVE_SHARE", 1e9)  # every epoch has a checkpoint


def run_trial(made: Worker, work) -> tuple[list[Epoch], Ended]:
    made.begin(work)
    epochs = []
    while isinstance(report := made.step(), Epoch):
        epochs.append(report)
    assert isinstance(report, Ended)
    return epochs, report


def failing(monkeypatch, when):
    """Have a step of training raise the error of a full GPU when `when(training, step)` is true; return the attempts
    that were made: epoch and parts of the training, by step."""
    update, steps = trial.Training.update, []

    def patched(self, losses):
        steps.append((len(self.curve), self.parts))
        if when(self, len(steps)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return update(self, losses)

    monkeypatch.setattr(trial.Training, "update", patched)
    return steps


WORK = a_trial("id", role="search", epochs=4, patience=4)


def undisturbed(split):
    return trial.run(WORK, split, trial.spectrum({}, 30))[0]


@pytest.fixture
def split():
    return a_split(random_histories(40, 30), 30)[0]


def test_a_trial_that_runs_out_of_memory_goes_on_from_its_checkpoint_alone(tmp_path, monkeypatch, quiet, split):
    expected = undisturbed(split)
    made = make_worker(tmp_path, CardLock(tmp_path, "card"))
    failed = []
    steps = failing(
        monkeypatch, lambda training, step: len(training.curve) == 2 and not failed and not failed.append(1)
    )
    epochs, ended = run_trial(made, WORK)
    assert ended.result.status == "done"
    assert ended.result.curve == expected.curve, "the numbers are those of a trial that was never disturbed"
    assert ended.result.info["alone"] == 1
    assert "accumulated" not in ended.result.info
    assert [report.curve for report in epochs] == [expected.curve[:n] for n in (1, 2, 3)]
    counts = Counter(epoch for epoch, _ in steps)
    assert counts[0] == counts[1] == counts[2] - 1 == counts[3], "no epoch before was trained again"


def test_then_in_half_batches_and_the_result_is_marked(tmp_path, monkeypatch, quiet, split):
    made = make_worker(tmp_path, CardLock(tmp_path, "card"))
    steps = failing(monkeypatch, lambda training, step: training.parts == 1)
    _, ended = run_trial(made, WORK)
    assert ended.result.status == "done"
    assert {"alone": 1.0, "accumulated": 2.0}.items() <= ended.result.info.items()
    assert [parts for _, parts in steps[:3]] == [1, 1, 2], "side by side, alone, in parts"
    made.begin(WORK)
    assert made.attempt == Attempt(), "the next trial of the process begins like any other"


def test_then_the_trial_fails_and_says_what_was_tried(tmp_path, monkeypatch, quiet):
    made = make_worker(tmp_path, CardLock(tmp_path, "card"))
    memory = SimpleNamespace(total_memory=16 * 2**30)
    made.card.cuda = SimpleNamespace(
        empty_cache=lambda: None,
        reset_peak_memory_stats=lambda: None,
        max_memory_allocated=lambda: 15 * 2**30,
        get_device_properties=lambda index: memory,
    )
    steps = failing(monkeypatch, lambda training, step: len(training.curve) == 1)
    epochs, ended = run_trial(made, WORK)
    assert ended.result.status == "failed"
    assert ended.result.reason == (
        "out of memory: batches of 96 targets in two parts, no other trial on the GPU at the same time, "
        "peak 15360 MB on a GPU of 16384 MB; set a smaller train.batch_size or train.max_len"
    )
    assert [parts for epoch, parts in steps if epoch == 1] == [1, 1, 2]
    assert len(epochs) == 1
    assert ended.result.curve == epochs[0].curve, "what it had reached is kept"
    assert made.training is None, "and its memory is free"


def test_with_a_gpu_of_its_own_a_trial_goes_to_half_batches_at_once(tmp_path, monkeypatch, quiet):
    made = make_worker(tmp_path, None)
    steps = failing(monkeypatch, lambda training, step: training.parts == 1)
    _, ended = run_trial(made, WORK)
    assert [parts for _, parts in steps[:2]] == [1, 2]
    assert "alone" not in ended.result.info


def test_a_lack_of_the_hosts_memory_ends_the_process_as_before(tmp_path, monkeypatch, quiet):
    made = make_worker(tmp_path, CardLock(tmp_path, "card"))

    def patched(self, losses):
        raise MemoryError("3 TB")

    monkeypatch.setattr(trial.Training, "update", patched)
    made.begin(WORK)
    with pytest.raises(worker.OutOfMemory, match="3 TB"):
        made.step()


def test_an_ensemble_is_tried_alone_and_has_no_batches_to_cut(tmp_path, monkeypatch, quiet):
    made, calls = make_worker(tmp_path, CardLock(tmp_path, "card")), []

    def full(*_):
        calls.append(made.attempt)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ensemble, "run", full)
    cell = Cell("toy", "noise", "sasrec", "id+linear")
    _, ended = run_trial(made, replace(WORK, cell=cell, role="confirm"))
    assert calls == [Attempt(), Attempt(True)]
    assert ended.result.reason == "out of memory: no other trial on the GPU at the same time"


def test_the_error_of_a_full_gpu_does_not_keep_the_tensors_that_filled_it(tmp_path, monkeypatch, quiet):
    """The next attempt begins with an empty GPU: nothing refers to the first one's training any more."""
    made, before = make_worker(tmp_path, CardLock(tmp_path, "card")), []

    def when(training, step):
        alive = [reference for reference in before if reference() is not None]
        if step > 1:
            assert not alive
        before.append(weakref.ref(training))
        return step == 1

    failing(monkeypatch, lambda training, step: len(training.curve) == 0 and step <= 2 and when(training, step))
    run_trial(made, WORK)
    assert len(before) == 2


# Workers of several processes on one card.


def neighbour(folder: str, log: str, over) -> None:
    """A trial side by side with others: logs the begin and the end of its epochs until `over` is set."""
    worker.Watchdog, worker.COMPONENTS = Beats, ()
    made = make_worker(Path(folder, "neighbour"), CardLock(Path(folder), "card"))
    train = trial.Training.epoch

    def epoch(self):
        write(log, "neighbour begins")
        train(self)
        write(log, "neighbour ends")

    trial.Training.epoch = epoch
    while not over.is_set():
        made.begin(WORK)
        while isinstance(made.step(), Epoch) and not over.is_set():
            pass


def write(log: str, line: str) -> None:
    with open(log, "a") as file:  # one write of a short line is atomic
        file.write(line + "\n")


def test_an_exhausted_trial_gets_its_turns_though_others_never_stop(tmp_path, monkeypatch, quiet, split):
    expected, log, over = undisturbed(split), str(tmp_path / "log"), SPAWN.Event()
    process = SPAWN.Process(target=neighbour, args=(str(tmp_path), log, over), daemon=True)
    made = make_worker(tmp_path / "home", CardLock(tmp_path, "card"))
    train = trial.Training.epoch

    def epoch(self):
        alone = made.attempt.alone
        write(log, "alone begins") if alone else None
        train(self)
        write(log, "alone ends") if alone else None

    monkeypatch.setattr(trial.Training, "epoch", epoch)
    failing(monkeypatch, lambda training, step: step == 1)
    process.start()
    try:
        while not os.path.exists(log):  # the neighbour is at work
            assert process.is_alive()
            time.sleep(0.01)
        _, ended = run_trial(made, WORK)
    finally:
        over.set()
        process.join(60)
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(process.pid, signal.SIGKILL)
    assert ended.result.curve == expected.curve
    assert ended.result.info["alone"] == 1
    lines = Path(log).read_text().splitlines()
    begins = [n for n, line in enumerate(lines) if line == "alone begins"]
    assert len(begins) == 4
    assert all(lines[n + 1] == "alone ends" for n in begins), "no epoch of the neighbour begins or ends meanwhile"
    assert all(lines[n - 1] == "neighbour ends" or lines[n - 1] == "alone ends" for n in begins)


def test_the_allocator_is_set_up_before_torch_is_imported():
    """PyTorch reads the variable once, at its import; a setting of the user stays."""
    code = (
        "import os, sys, harness.engine.ray_tune\n"
        "print('torch' in sys.modules, os.environ.get('PYTORCH_ALLOC_CONF'), os.environ.get('PYTORCH_CUDA_ALLOC_CONF'))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    run = lambda env: subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout  # noqa: E731
    assert run(clean) == "False expandable_segments:True None\n"
    assert run(clean | {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"}) == "False None backend:native\n"
