"""Files that a user writes and that cannot be parsed: one line, exit code 2."""

import pytest
from command_line import harness


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "a = " + "9" * 5000, "a = 1\na = 2", "= 1"])
@pytest.mark.parametrize("command", ["paper", "plan", "bench", "prepare"])
def test_toml_that_is_none_is_named_in_one_line(home, tmp_path, command, text):
    file = tmp_path / ("dataset.toml" if command == "prepare" else "mine.toml")
    file.write_text(text)
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,i\n")
    (tmp_path / "items.csv").write_text("item_id,title\ni,one\n")
    done = harness(home, command, str(tmp_path if command == "prepare" else file))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert file.name in done.stderr.splitlines()[-1]
