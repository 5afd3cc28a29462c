"""Files that are written as a whole: their permissions, links, devices and pipes."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.system.files import atomic, build_folder, write_text


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_to_the_group():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_new_files_and_folders_have_the_permissions_of_any_new_file(tmp_path, open_to_the_group):
    write_text(tmp_path / "table.html", "a table")
    folder = build_folder(tmp_path / "export", lambda new: write_text(new / "config.json", "{}"))
    assert [mode(path) for path in (tmp_path / "table.html", folder, folder / "config.json")] == [0o640, 0o750, 0o640]


def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("old")
    file.chmod(0o600)
    write_text(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)


@pytest.mark.parametrize("above", [None, "/dev/shm"])
def test_an_ordinary_file_is_replaced_and_not_written_in_place(above):
    if above and not os.path.isdir(above):
        pytest.skip("this system has no /dev/shm")
    with tempfile.TemporaryDirectory(dir=above) as folder:
        file = Path(folder) / "table.csv"
        write_text(file, "old")
        with file.open() as reader:
            write_text(file, "new")
            assert (reader.read(), file.read_text()) == ("old", "new")


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "shared").mkdir()
    target, link = tmp_path / "shared" / "config.toml", tmp_path / "config.toml"
    link.symlink_to(target)
    for text in ("first", "second"):  # the first creates what the link leads to
        write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text


def test_a_failed_write_leaves_what_was_there(tmp_path):
    file = tmp_path / "table.csv"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError), atomic(file) as temporary:
        temporary.write_text("half \udcff", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert file.read_text() == "old"


def test_a_pipe_gets_the_content_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    write_text(pipe, "a table")
    assert reader.communicate(timeout=60)[0] == "a table"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("redirected", [False, True])
def test_standard_output_gets_the_content(tmp_path, redirected):
    program = "from pathlib import Path; from harness.system.files import write_text as w; w(Path('/dev/stdout'), 'hi')"
    with open(tmp_path / "out", "w+") as out:
        done = subprocess.run([sys.executable, "-c", program], stdout=out if redirected else subprocess.PIPE, text=True)
        assert done.returncode == 0
        assert (out.read() if redirected else done.stdout) == "hi"
