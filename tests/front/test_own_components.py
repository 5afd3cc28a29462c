"""Components from outside harness: found, named with their file where broken, hashed, and shipped by content."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import small_homes
from command_line import SMALL_MODEL, TINY, bench, environment, events, harness

from harness import overlay, registry
from harness.data import reader
from harness.search import plan
from harness.system.code_hash import code_hash
from harness.training import exported_model
from harness.types import Cell, HarnessError

ROOT = Path(__file__).parents[2]
KINDS = ["adapter", "backbone", "loss", "encoder", "baseline", "metric", "list-metric", "dataset", "table"]


@pytest.fixture(autouse=True)
def only_ours():
    yield
    registry.use(overlay.Overlay())


@pytest.fixture
def mine(tmp_path, home) -> Path:
    """A folder with the adapter `mine`, as `harness new` writes it."""
    done = harness(home, "new", "adapter", "mine", "--output", str(tmp_path / "lib"))
    assert done.returncode == 0, done.stderr
    return tmp_path / "lib"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def error_of(home: Path, *words: str) -> str:
    """The one line that a command prints as it refuses."""
    done = harness(home, *words)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), lines[0][:7]) == (2, 1, "Error: ")
    return lines[0]


def revision(folder: Path) -> object:
    """What identifies the code of the adapter `mine` in the identity of a trial."""
    registry.use_folders([folder])
    return plan.versions(Cell("toy", "noise", "sasrec", "mine"), "softmax")["adapters"]


# Found


def test_list_and_show_say_where_a_component_comes_from(mine, home):
    listed = json.loads(harness(home, "list", "--components", str(mine), "--json").stdout)
    [entry] = [entry for entry in listed["adapters"] if "from" in entry]
    assert (entry["name"], entry["from"]) == ("mine", str(mine))
    assert f"[from {mine}]" in harness(home, "list", "--components", str(mine)).stdout
    shown = json.loads(harness(home, "show", "mine", "--components", str(mine), "--json").stdout)
    assert shown["from"] == str(mine / "adapters" / "mine.py")
    assert set(shown["space"]) == {"n_layers", "dropout"}
    assert "mine" not in [entry["name"] for entry in json.loads(harness(home, "list", "--json").stdout)["adapters"]]


def test_folders_may_be_several_and_come_from_the_environment(mine, home, tmp_path, monkeypatch):
    harness(home, "new", "backbone", "walker", "--output", str(tmp_path / "other"))
    words = ["list", "--json", "--components", str(mine), "--components", str(tmp_path / "other")]
    given = harness(home, *words).stdout
    assert {"mine", "walker"} <= {e["name"] for kind in ("adapters", "backbones") for e in json.loads(given)[kind]}
    monkeypatch.setenv("HARNESS_COMPONENTS", os.pathsep.join([str(mine), str(tmp_path / "other")]))
    assert harness(home, "list", "--json").stdout == given


def test_a_study_file_names_folders_relative_to_itself(mine, home, dataset, tmp_path, monkeypatch):
    (tmp_path / "study.toml").write_text('components = "lib"\nadapters = ["mine"]\nencoders = "noise"\n')
    monkeypatch.chdir(home)
    words = [str(tmp_path / "study.toml"), str(dataset), "--save", str(tmp_path / "copy.toml")]
    done = harness(home, "plan", *words)
    assert (done.returncode, " / mine" in done.stdout) == (0, True), done.stderr
    assert f'components = ["{mine}"]' in (tmp_path / "copy.toml").read_text()
    (tmp_path / "study.toml").write_text("components = 3\n")
    assert "components is a whole number; it takes a string or a list of strings" in error_of(home, "plan", *words)


def test_reading_imports_neither_the_component_nor_torch(mine, home):
    (mine / "adapters" / "mine.py").write_text(
        '"""Mine."""\nraise SystemExit("imported")\nclass Mine:\n    """Mine."""\n'
    )
    program = (
        "import sys; from harness.cli import main\n"
        f"main(['list', '--components', {str(mine)!r}], standalone_mode=False)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(home))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr


def test_an_installed_package_is_found_by_its_entry_points(mine, home, tmp_path, monkeypatch):
    site = tmp_path / "site"
    (site / "shop").mkdir(parents=True)
    (site / "shop" / "__init__.py").write_text("")
    (site / "shop" / "scale.py").write_text("FACTOR = 3.0\n")
    (site / "shop" / "wide.toml").write_text("")
    source = (mine / "adapters" / "mine.py").read_text().replace("class Mine", "class Wide")
    source = source.replace("from torch import", "from .scale import FACTOR\nfrom torch import")
    (site / "shop" / "wide.py").write_text(source.replace("self.layers(self", "FACTOR * self.layers(self"))
    info = site / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.adapters]\nwide = shop.wide:Wide\n")
    monkeypatch.syspath_prepend(str(site))
    listed = json.loads(harness(home, "list", "--json").stdout)["adapters"]
    assert [entry["from"] for entry in listed if entry["name"] == "wide"] == ["package shop"]
    assert registry.load(registry.ADAPTERS, "wide").__name__ == "Wide"
    before = registry.schema(registry.ADAPTERS, "wide").revision
    (site / "shop" / "scale.py").write_text("FACTOR = 4.0\n")
    registry.use_folders([])
    assert registry.schema(registry.ADAPTERS, "wide").revision != before
    (info / "entry_points.txt").write_text("[harness.adapters]\nwide = shop.lost:Wide\n")
    message = error_of(home, "list")
    assert "shop.lost:Wide" in message
    assert "Correct or uninstall shop" in message


# Refused


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("adapters/mlp.py", "'mlp' is a built-in component of adapters. Rename the file"),
        ("adapters/popularity.py", "'popularity' is a built-in component of harness.training.baselines"),
        ("adapters/_base.py", "harness has its own _base. Rename the file"),
        ("adapters/all.py", "'all' cannot name a component"),
        ("adapters/my-own.py", "'my-own' cannot name a component. Use letters, digits and _"),
        ("search_spaces/adapters/mien.toml", "the folder has no adapters/mien.py"),
    ],
)
def test_a_file_that_would_hide_ours_or_never_be_read_is_refused(mine, home, file, words):
    (mine / file).write_text("")
    message = error_of(home, "list", "--components", str(mine))
    assert str(mine / file) in message
    assert words in message


def test_a_name_in_two_folders_a_missing_and_an_empty_folder_are_refused(mine, home, tmp_path):
    shutil.copytree(mine, tmp_path / "copy")
    twice = error_of(home, "list", "--components", str(mine), "--components", str(tmp_path / "copy"))
    assert "have the same name. Rename one" in twice
    assert f"there is no folder {tmp_path / 'away'}" in error_of(home, "list", "--components", str(tmp_path / "away"))
    (tmp_path / "empty").mkdir()
    assert "none of the folders adapters/" in error_of(home, "list", "--components", str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class X(:\n", "line 1: not valid Python: invalid syntax. Correct the file"),
        ('"""Mine."""\nx = 1\n', "defines no public class"),
        ('"""Mine."""\nclass Mine:\n    def __init__(self, s, d, *, a: int = f()): ...\n', "cannot be read"),
    ],
)
def test_a_broken_file_is_named_where_it_is_selected_and_listed_as_broken(mine, home, dataset, source, words):
    file = mine / "adapters" / "mine.py"
    file.write_text(source)
    grid = ["plan", "--datasets", str(dataset), "--encoders", "noise", "--components", str(mine)]
    message = error_of(home, *grid, "--adapters", "mine")
    assert str(file) in message
    assert words in message
    assert harness(home, *grid, "--adapters", "id").returncode == 0
    assert f"Broken: {file}" in harness(home, "list", "--components", str(mine)).stdout


@pytest.mark.parametrize("source", ["class Shop(:\n", 'import nothing_of_that_name\nclass Shop:\n    """Mine."""\n'])
def test_a_broken_data_set_matters_only_to_who_selects_it(mine, home, dataset, source):
    file = mine / "datasets" / "shop.py"
    file.parent.mkdir()
    file.write_text(source)
    reader.register("toy", dataset, home)
    words = ["--components", str(mine)]
    assert str(file) in error_of(home, "plan", "--datasets", "shop", *words)
    for asked in (["list"], ["show", "ml-100k"], ["plan", "--datasets", "all,!ml-100k", "--encoders", "noise"]):
        done = harness(home, *asked, *words)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["../x", "sub/mine", "/x"])
def test_a_name_is_no_path(tmp_path, home, name):
    done = harness(home, "new", "adapter", name, "--output", str(tmp_path / "lib" / "deep"))
    assert done.returncode == 2
    assert f"'{name}' is no name of a component" in done.stderr
    assert not (tmp_path / "lib").exists()


def test_a_missing_search_space_is_named_with_its_path(mine, home, dataset):
    space = mine / "search_spaces" / "adapters" / "mine.toml"
    space.unlink()
    grid = ["plan", "--datasets", str(dataset), "--encoders", "noise", "--components", str(mine)]
    assert f"{space} is missing" in error_of(home, *grid, "--adapters", "mine")


# Identity


def test_the_identity_changes_with_the_code_and_only_with_the_code(mine, tmp_path):
    helper = mine / "adapters" / "_helper.py"
    helper.write_text("ONE = 1\n")
    (mine / "adapters" / "_unused.py").write_text("TWO = 2\n")
    before = revision(mine)
    assert re.fullmatch(r"1\+[0-9a-f]{16}", str(before))
    (mine / "adapters" / "_unused.py").write_text("TWO = 3\n")
    shutil.copytree(mine, tmp_path / "moved")
    assert revision(tmp_path / "moved") == before, "neither its place nor a file that it does not import"
    edit(mine / "adapters" / "mine.py", "from torch import", "from ._helper import ONE\nfrom torch import")
    imports = revision(mine)
    helper.write_text("ONE = 2\n")
    assert len({before, imports, revision(mine)}) == 3


def test_the_identity_changes_with_the_version_of_a_built_in_component_that_it_imports(mine, monkeypatch):
    (mine / "adapters" / "mine.py").write_text(
        '"""Mine."""\nfrom adapters.linear import Linear\n\n\nclass Mine(Linear):\n    """Mine."""\n'
    )
    before = revision(mine)
    assert registry.schema(registry.ADAPTERS, "mine").params == registry.schema(registry.ADAPTERS, "linear").params
    monkeypatch.setattr(registry.Schema, "version", property(lambda schema: 7 if schema.name == "linear" else 1))
    assert revision(mine) != before


def test_built_in_components_are_recorded_by_their_version_alone(mine):
    registry.use_folders([mine])
    versions = plan.versions(Cell("toy", "noise", "gru4rec", "svd"), "softmax")
    assert all(type(version) is int for version in versions.values())


# Shipped


def test_a_process_that_has_only_the_content_runs_the_same_code(mine, tmp_path):
    registry.use_folders([mine])
    content, expected = tmp_path / "content", code_hash()
    content.write_bytes(pickle.dumps(overlay.current()))
    shutil.rmtree(mine)
    program = (
        "import pickle, sys; from pathlib import Path; from harness import registry\n"
        "from harness.system.code_hash import code_hash\n"
        f"registry.use(pickle.loads(Path({str(content)!r}).read_bytes()))\n"
        "print(registry.load('adapters', 'mine').__name__, code_hash())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["Mine", expected], done.stderr


def test_a_changed_file_is_imported_anew(mine):
    registry.use_folders([mine])
    first = registry.load(registry.ADAPTERS, "mine")
    registry.use_folders([mine])
    assert registry.load(registry.ADAPTERS, "mine") is first
    edit(mine / "adapters" / "mine.py", "class Mine", "class Other")
    registry.use_folders([mine])
    assert registry.load(registry.ADAPTERS, "mine").__name__ == "Other"


def test_what_imports_a_changed_file_is_imported_anew(mine):
    """Its hash is that of the new code: what the old code computes must not be stored under it."""
    for name, text in {"_scale": "SCALE = 1", "_uses": "from adapters import _scale\nTWICE = 2 * _scale.SCALE"}.items():
        (mine / "adapters" / f"{name}.py").write_text(text + "\n")
    edit(mine / "adapters" / "mine.py", "class Mine", "from ._uses import TWICE\n\n\nclass Mine")
    registry.use_folders([mine])
    first = registry.load(registry.ADAPTERS, "mine")
    edit(mine / "adapters" / "_scale.py", "1", "10")
    registry.use_folders([mine])
    again = registry.load(registry.ADAPTERS, "mine")
    assert (sys.modules[first.__module__].TWICE, again is first) == (20, False)


def test_every_kind_works_in_a_bench_and_its_rows_remain_without_the_folder(home, dataset, tmp_path):
    lib = tmp_path / "lib"
    for kind in KINDS:
        assert harness(home, "new", kind, f"my-{kind}", "--output", str(lib)).returncode == 0
    words = ["--adapters", "id,my-adapter", "--backbones", "my_backbone", "--set", "train.loss=my_loss"]
    words += ["--encoders", "my_encoder", "--components", str(lib), "--trials", "1"]
    done = bench(home, f"{dataset},my-dataset", *words)
    assert done.returncode == 0, done.stderr
    recorded = events(home, "launched")[0]["provenance"]["components"]
    assert {"adapters/my_adapter", "backbones/my_backbone", "losses/my_loss"} <= recorded.keys()
    assert "MY_METRIC@10" in harness(home, "leaderboard", "--format", "my_table", "--components", str(lib)).stdout
    again = harness(home, "plan", "--datasets", f"{dataset},my-dataset", *TINY, *SMALL_MODEL, *words, "--json")
    assert sum(cell["to_run"] for cell in json.loads(again.stdout)["cells"]) == 0
    row = ["my-dataset/my_encoder/my_backbone/my_adapter"]
    reproduced = harness(home, "reproduce", *row, "--components", str(lib))
    assert reproduced.returncode == 0, reproduced.stderr
    model = tmp_path / "model"
    exported = harness(home, "export", *row, "--output", str(model), "--mlflow", "--components", str(lib))
    assert exported.returncode == 0, exported.stderr
    registry.use_folders([lib])
    [answer] = exported_model.load(model).recommend([["i001", "i002"]], 4)
    shutil.rmtree(lib)
    assert answered(model / "mlflow") == vars(answer)
    table = harness(home, "leaderboard")
    assert table.returncode == 0, table.stderr
    assert {"my_adapter", "my_baseline", "my_encoder"} <= set(table.stdout.split())
    for words in (["reproduce", *row], ["export", *row, "--output", str(tmp_path / "other")]):
        refused = error_of(home, *words)
        assert "not built in: my_adapter, my_backbone, my_loss. Add --components DIR" in refused


def answered(model: Path) -> object:
    """The answer of an MLflow model in a process that has only its folder."""
    program = (
        "import json, mlflow, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({str(model)!r})\n"
        "print(json.dumps(model.predict(pd.DataFrame({'history': [['i001', 'i002']]}), params={'k': 4})))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=model.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])[0]


def test_the_packages_that_a_component_imports_are_found_through_its_own_modules(mine):
    (mine / "adapters" / "_helper.py").write_text("import scipy.sparse\nimport json\n")
    edit(mine / "adapters" / "mine.py", "from torch import", "from adapters import _helper\nfrom torch import")
    registry.use_folders([mine])
    own = overlay.current().component("adapters", "mine")
    assert overlay.current().part([own]).packages() == [
        f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("scipy", "torch")
    ]


def test_a_trial_that_fails_names_the_file(mine, home, dataset):
    edit(mine / "adapters" / "mine.py", "return self.layers(", "return float('nan') * self.layers(")
    done = bench(home, dataset, "--adapters", "mine", "--trials", "0", "--components", str(mine))
    assert done.returncode == 1
    [reason] = {e["result"]["reason"] for e in events(home, "ended") if e["result"]["status"] == "failed"}
    assert "not finite" in reason
    assert "adapters/mine.py" in reason
    assert "pytest --pyargs harness.conformance" in reason


# The installed suite


def test_new_never_overwrites_and_refuses_a_name_of_ours(mine, home):
    file = mine / "adapters" / "mine.py"
    file.write_text("kept")
    assert f"{file} exists" in error_of(home, "new", "adapter", "mine", "--output", str(mine))
    assert file.read_text() == "kept"
    assert "'svd' is a built-in component" in error_of(home, "new", "adapter", "svd", "--output", str(mine))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [file] = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "site")
    return folder / "site"


def conformance(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the suite of the installed package, away from the checkout."""
    command = [sys.executable, "-m", "pytest", "-q", "--pyargs", "harness.conformance", *words]
    env = environment(folder / "home") | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [*command, "--components", str(folder)], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


def test_what_new_writes_passes_the_suite_and_a_fault_fails_it(installed, home, tmp_path):
    lib = tmp_path / "lib"
    for kind in KINDS:
        assert harness(home, "new", kind, f"my-{kind}", "--output", str(lib)).returncode == 0
    done = conformance(installed, lib)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 40
    edit(lib / "adapters" / "my_adapter.py", "return self.layers(", "return float('nan') * self.layers(")
    assert conformance(installed, lib, "-k", "my_adapter").returncode == 1
    (lib / "adapters" / "my_adapter.py").write_text("class X(:\n")
    broken = conformance(installed, lib)
    assert broken.returncode == 4
    assert "my_adapter.py, line 1: not valid Python" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_the_guide_is_true(installed, home, dataset, tmp_path):
    """The example of docs/own-components.md passes the suite and trains."""
    text = (ROOT / "docs" / "own-components.md").read_text()
    lib = tmp_path / "lib"
    for name, code in re.findall(r"`my-components/([\w/]+\.(?:py|toml))`\n\n```\w+\n(.*?)```", text, re.DOTALL):
        (lib / name).parent.mkdir(parents=True, exist_ok=True)
        (lib / name).write_text(code)
    assert (lib / "adapters" / "scaled.py").is_file()
    assert len((lib / "adapters" / "scaled.py").read_text().splitlines()) <= 20
    done = conformance(installed, lib)
    assert done.returncode == 0, done.stdout
    small_homes.bench(home, dataset, "--adapters", "scaled", "--trials", "0", "--components", str(lib))
    assert any(e["result"]["curve"] for e in events(home, "ended")), "it trains"


def test_folders_are_an_option_in_python_too(mine, home):
    from harness.api import parsed
    from harness.verbs import bench as verb

    options = parsed("bench", verb.command, {"components": [mine, home], "home": home})
    assert options["components"] == (mine, home)
    with pytest.raises(HarnessError, match="there is no folder"):
        registry.use_folders([mine / "away"])
