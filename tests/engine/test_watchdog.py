"""The watchdog and the crash log of a worker, in separate processes."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from harness.engine.watchdog import crash_log_path, describe_crash, read_crash_log


def run(body):
    """A process with a watchdog `dog`; returns its exit code, its crash reason and its process id."""
    head = "import ctypes, os, time\nfrom harness.engine.watchdog import Watchdog\n"
    process = subprocess.Popen([sys.executable, "-c", head + textwrap.dedent(body)], stderr=subprocess.DEVNULL)
    code = process.wait(60)
    return code, read_crash_log(process.pid), process.pid


def test_a_process_that_is_silent_too_long_ends_itself_and_says_so():
    code, words, pid = run("dog = Watchdog(0.5); dog.start(0.0); time.sleep(60)")
    assert code == 1
    assert words.startswith("no sign of life for 0:00:00.5")
    assert not crash_log_path(pid).exists(), "a log is read once"


def test_a_hang_that_holds_the_interpreter_is_seen_as_well():
    code, words, _ = run("dog = Watchdog(0.5); dog.start(0.0); ctypes.PyDLL(None).sleep(60)")
    assert (code, words[:20]) == (1, "no sign of life for ")


def test_signs_of_life_and_a_long_epoch_before_are_respected():
    body = """
    dog = Watchdog(1.0); dog.start(0.0)
    for _ in range(20):
        dog.beat(); time.sleep(0.1)
    dog.start(1.0)  # its longest epoch took a second: ten of them are allowed
    time.sleep(1.5)
    dog.stop(); time.sleep(0.2); dog.close()
    """
    code, words, pid = run(body)
    assert (code, words) == (0, "")
    assert not crash_log_path(pid).exists()


@pytest.mark.parametrize("made", ["link", "open to others"])
def test_a_folder_that_another_user_may_have_prepared_gets_no_log(tmp_path, made):
    victim, folder = tmp_path / "victim", tmp_path / f"harness-workers-{os.getuid()}"
    target = tmp_path / "elsewhere" if made == "link" else folder
    target.mkdir()
    if made == "link":
        folder.symlink_to(target)
    else:
        target.chmod(0o777)
    victim.write_text("kept")
    body = f"""
    os.environ["TMPDIR"] = {str(tmp_path)!r}
    os.symlink({str(victim)!r}, f"{target}/{{os.getpid()}}.txt")
    dog = Watchdog(0.0); dog.start(0.0); os.abort()
    """
    assert run(body)[0] == -signal.SIGABRT
    assert victim.read_text() == "kept"


def test_no_watchdog_was_asked_for():
    assert run("dog = Watchdog(0.0); dog.start(0.0); time.sleep(0.5); dog.close()")[:2] == (0, "")


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("os.abort()", -signal.SIGABRT, "Aborted"),
        ("ctypes.string_at(0)", -signal.SIGSEGV, "Segmentation fault"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
    ],
)
def test_how_a_process_died_can_be_read_unless_it_was_killed(body, code, words):
    assert run(f"dog = Watchdog(9.0); {body}")[:2] == (code, words)


def test_a_process_that_was_never_there_has_no_words():
    assert read_crash_log(2**22 + 1) == ""


@pytest.mark.parametrize("file", ["training/batches.py", "search/warm_start.py", "engine/ray_tune.py"])
def test_a_file_whose_name_resembles_the_workers_is_blamed(file):
    dump = (
        "Fatal Python error: Aborted\n\nThread 0x7 (most recent call first):\n"
        '  File "/x/harness/engine/watchdog.py", line 3 in beat\n'
        '  File "/x/harness/engine/worker.py", line 7 in step\n'
        f'  File "/x/harness/{file}", line 12 in gather\n'
        '  File "/x/harness/training/trial.py", line 150 in epoch\n'
    )
    assert describe_crash(dump) == f"Aborted in harness/{file}, line 12 (gather)"
