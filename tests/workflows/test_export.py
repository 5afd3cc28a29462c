"""What leaves the bench gives the bench's own numbers, without the bench; what is damaged says so."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import small_homes
import torch
from command_line import harness as command
from dataset_files import make_dataset

from harness import registry
from harness.data import splits
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.system import checksums
from harness.training import exported_model
from harness.types import HarnessError, Protocol, digest
from harness.workflows import export

BACKBONES = registry.names(registry.BACKBONES)
ITEMS = 40
BUDGET = small_homes.BUDGET.__class__("made", trials=1, epochs=1, patience=1, seeds=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home with every backbone under `id`, and adapters of every kind under two of them."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("export")
    home, dataset = root / "home", make_dataset(root / "toy", items=ITEMS)
    home.mkdir()
    small_homes.run(small_homes.request(home, dataset, "id", backbones="*", budget=BUDGET))
    small_homes.run(
        small_homes.request(home, dataset, "spectran,llmesr,tedrec", backbones="sasrec,bert4rec", budget=BUDGET)
    )
    pins = {**small_homes.SMALL, "text.fusion": "none", "train.loss": "infonce"}
    other = {"backbones": "sasrec", "budget": BUDGET, "pins": pins, "protocol": Protocol(filter_seen=False)}
    small_homes.run(small_homes.request(home, dataset, "linear", **other))
    return home


def first_table(home):
    ledger = Ledger.open(home)
    run = sorted(ledger.launches)[1]
    return ledger, run, [row for row in row_lookup.of(ledger, run).values() if not row.cell.is_baseline]


def loaded(home, word, folder, run=None):
    report = export.write(home, word, folder, run=run)
    assert report.equal == report.queries == 60
    return exported_model.load(report.folder)


@pytest.fixture(scope="module")
def sasrec(made, tmp_path_factory):
    """An export of `id` under SASRec."""
    folder = tmp_path_factory.mktemp("out") / "sasrec"
    export.write(made, "sasrec/id", folder, run=first_table(made)[1])
    return folder


def answered_rank(model, split, query):
    """Rank of a test target among the exported model's own answers, or None where it is not among them."""
    user, end = split.test.users[query], split.test.ends[query]
    start = split.offsets[user]
    history = [model.ids[i - 1] for i in split.items[start : start + end]]
    [answer] = model.recommend([history], len(model.ids), [split.times[start : start + end + 1].tolist()])
    target = model.ids[split.items[start + end] - 1]
    return 1 + answer.items.index(target) if target in answer.items else None


@pytest.mark.slow
def test_every_kind_of_model_ranks_the_test_targets_as_the_bench_did(made, tmp_path):
    ledger, run, found = first_table(made)
    assert {row.cell.backbone for row in found} == set(BACKBONES)
    for number, row in enumerate(found):
        model = loaded(made, row.words, tmp_path / str(number), run)
        [own] = row_lookup.confirmed(ledger, row)
        split = splits.split(row_lookup.sequences(made, row, own.inputs.data), own.protocol)
        compared = 0
        for query, stored in enumerate(artifacts.load_ranks(made, own.id).iter_rows(named=True)):
            answered = answered_rank(model, split, query)
            if answered is not None:  # else seen before
                assert stored["low"] <= answered <= stored["high"], row.words
                compared += 1
        assert compared > 20, row.words


def test_seen_items_are_answered_with_exactly_where_the_protocol_ranks_them(made, sasrec, tmp_path):
    without = exported_model.load(sasrec)
    [answer] = without.recommend([["i001", "i002"]], ITEMS)
    assert len(answer.items) == ITEMS - 2
    assert not {"i001", "i002"} & set(answer.items)
    kept = loaded(made, "sasrec/linear", tmp_path / "kept")
    [answer] = kept.recommend([["i001", "i002"]], ITEMS)
    assert len(answer.items) == ITEMS


def test_unknown_items_are_passed_over_and_counted(sasrec):
    model = exported_model.load(sasrec)
    plain, with_unknown = model.recommend([["i003", "i004"], ["x", "i003", "y", "i004"]], 5)
    assert (plain.unknown, with_unknown.unknown) == (0, 2)
    assert with_unknown.items == plain.items
    np.testing.assert_allclose(with_unknown.scores, plain.scores, rtol=1e-5)


def test_histories_without_a_known_item_get_the_most_frequent_items(sasrec):
    model = exported_model.load(sasrec)
    empty, strange, known = model.recommend([[], ["x"], ["i003"]], 4)
    assert empty.items == strange.items
    assert empty.scores == sorted(model.popularity.tolist(), reverse=True)[:4]
    assert (empty.popular, strange.popular, known.popular) == (True, True, False)
    assert (empty.unknown, strange.unknown) == (0, 1)
    assert model.recommend([], 3) == []


def test_of_a_long_history_the_last_events_are_read_and_all_are_seen(sasrec):
    model = exported_model.load(sasrec)
    rng = np.random.default_rng(3)
    history = [f"i{i:03d}" for i in rng.permutation(ITEMS)[:30]]
    long, short = model.recommend([history, history[-8:]], ITEMS)
    assert set(long.items) == set(model.ids) - set(history)
    scores = dict(zip(short.items, short.scores, strict=True))
    np.testing.assert_allclose(long.scores, [scores[name] for name in long.items], rtol=1e-4, atol=1e-6)


def test_a_model_that_reads_times_says_what_it_needs(made, tmp_path):
    model = loaded(made, "hstu_time/id", tmp_path / "x", first_table(made)[1])
    with pytest.raises(HarnessError, match="hstu_time needs timestamps: pass times"):
        model.recommend([["i001"]])
    with pytest.raises(HarnessError, match=r"lengths \[1\]; they must be \[2\]"):
        model.recommend([["i001"]], times=[[5]])
    soon, late = (model.recommend([["i001", "x", "i002"]], 5, [[0, 1, 2, at]])[0] for at in (3, 10**8))
    assert soon.scores != late.scores


def test_a_catalogue_that_a_history_can_exhaust_is_exported(tmp_path):
    """The histories of the self-test then have all items, and nothing is left to recommend."""
    home = tmp_path / "home"
    home.mkdir()
    torch.set_num_threads(1)
    small_homes.run(small_homes.request(home, make_dataset(tmp_path / "toy", items=6), "id", budget=BUDGET))
    model = exported_model.load(export.write(home, "sasrec/id", tmp_path / "x").folder)
    assert model.recommend([model.ids], 3)[0].items == []


def test_wrong_questions_are_one_line(sasrec):
    model = exported_model.load(sasrec)
    for histories, k, words in (
        ([["i001"]], 0, "k is 0"),
        (["i001"], 3, "list of lists"),
        ("i001", 3, "list of lists"),
        (None, 3, "list of lists"),
        ([None], 3, "list of lists"),
        ([5], 3, "list of lists"),
        ([b"i001"], 3, "list of lists"),
        ([[None]], 3, "item ids are text or whole numbers"),
        ([[101.0, 102.0]], 3, "101.0 is not the id 101"),
        ([[float("nan")]], 3, "item ids are text or whole numbers"),
        ([["i001"]], True, "k is True"),
        ([["i001"]], 2.0, "k is 2.0"),
    ):
        with pytest.raises(HarnessError, match=words):
            model.recommend(histories, k)
    [one], [other] = (model.recommend([["i001"]], k) for k in (3, np.int64(3)))
    assert one == other
    with pytest.raises(HarnessError, match="cannot map unseen items to vectors: none, since id"):
        model.extended(["new"], np.zeros((1, 24)))


def test_the_text_of_an_unseen_item_makes_its_vector(made, tmp_path):
    model = loaded(made, "sasrec/linear", tmp_path / "x")
    row = row_lookup.find(row_lookup.of(Ledger.open(made)), "sasrec/linear")
    [own] = row_lookup.confirmed(Ledger.open(made), row)
    E = row_lookup.text(made, row, own.inputs.embedding, row_lookup.sequences(made, row, own.inputs.data))["E"]
    more = model.extended(["twin of i007", "new"], np.stack([E[7], E.mean(0)]))
    torch.testing.assert_close(more.table[ITEMS], model.table[7], rtol=1e-4, atol=1e-5)
    [answer] = more.recommend([["i003"]], ITEMS + 2)
    scores = dict(zip(answer.items, answer.scores, strict=True))
    assert scores["twin of i007"] == pytest.approx(scores["i007"], abs=1e-4)
    assert "new" in scores
    for ids, E2, words in (
        (["i001"], E[:1], "in the catalogue"),
        ([7, "7"], E[:2], "repeated in ids"),
        (["new"], E[:2], "embeddings have shape"),
        (["new"], E[:1] * np.nan, "embedding of 'new' has NaN or infinite"),
        (["old", "new"], E[:2] * [[1], [0]], "embedding of 'new' is zero, as of an item without text"),
        (["new"], "vector", "must be a list and a matrix of numbers"),
    ):
        with pytest.raises(HarnessError, match=words):
            model.extended(ids, E2)


def test_an_unseen_item_with_a_number_as_its_id_is_known_in_histories(made, tmp_path):
    model = loaded(made, "sasrec/linear", tmp_path / "x")
    [answer] = model.extended([101], np.ones((1, len(model.linear[0])))).recommend([[101]], 1)
    assert (answer.unknown, answer.popular) == (0, False)


@pytest.mark.parametrize(
    "file",
    [
        exported_model.TABLE,
        exported_model.BACKBONE,
        exported_model.ITEMS,
        exported_model.SELFTEST,
        exported_model.CONFIG,
    ],
)
def test_a_damaged_or_missing_file_is_named(sasrec, tmp_path, file):
    folder = shutil.copytree(sasrec, tmp_path / "x")
    body = bytearray((folder / file).read_bytes())
    body[len(body) // 2] ^= 0x40
    (folder / file).write_bytes(bytes(body))
    with pytest.raises(HarnessError, match="cannot be read|damaged" if file == exported_model.CONFIG else file):
        exported_model.load(folder)
    (folder / file).unlink()
    with pytest.raises(HarnessError, match=file):
        exported_model.load(folder)


@pytest.mark.parametrize("content", [{"architectures": ["BertModel"]}, [], {"schema": "1"}, {"components": []}, 3])
def test_the_configuration_of_another_program_is_one_line(tmp_path, content):
    (tmp_path / exported_model.CONFIG).write_text(json.dumps(content))
    with pytest.raises(HarnessError, match="is not an exported model"):
        exported_model.load(tmp_path)


@pytest.mark.parametrize("index", [[2, 1, 0], [5, 7, 9], ["a", "b", "c"]])
def test_a_column_of_a_frame_is_read_by_place(sasrec, index):
    model = exported_model.load(sasrec)
    histories = [model.ids[:3], model.ids[4:6], ["unknown"]]
    assert model.recommend(pd.Series(histories, index=index), 4) == model.recommend(histories, 4)
    many = [histories[row % 3] for row in range(600)]
    assert model.recommend(pd.Series(many), 2) == model.recommend(many, 2)


def test_a_changed_bit_anywhere_in_the_configuration_is_noticed(sasrec, tmp_path):
    path = shutil.copytree(sasrec, tmp_path / "x") / exported_model.CONFIG
    body = path.read_bytes()
    for at in range(0, len(body), len(body) // 40):
        path.write_bytes(body[:at] + bytes([body[at] ^ 0x01]) + body[at + 1 :])
        with pytest.raises(HarnessError, match=r"cannot be read|damaged|newer harness"):
            exported_model.load(path.parent, check=False)


def rewrite(folder, config):
    """Write a configuration that was changed on purpose."""
    from harness.system import files

    config = {name: value for name, value in config.items() if name != "digest"}
    files.write_json(folder / exported_model.CONFIG, config | {"digest": digest(config)})


def test_an_export_says_what_trained_it_and_what_wrote_it(made, tmp_path, monkeypatch):
    ledger, run, _ = first_table(made)
    here = export.provenance() | {"harness": "99.0", "python": "9.9"}
    monkeypatch.setattr(export, "provenance", lambda: here)
    folder = export.write(made, "sasrec/id", tmp_path / "x", run=run).folder
    config = json.loads((folder / exported_model.CONFIG).read_text())
    launch = ledger.launches[ledger.trials[config["trial"]].run]
    assert config["trained"].items() <= launch.provenance.items()
    assert config["trained"].keys() >= {"harness", "code", "python", "versions", "machine", "date"}
    assert (config["harness"], config["provenance"]["python"]) == ("99.0", "9.9")
    told = (
        f"trained by harness {launch.provenance['harness']} on {launch.provenance['date']}; exported by harness 99.0."
    )
    assert told in (folder / "README.md").read_text()


def test_the_self_test_refuses_other_weights_whose_hash_was_put_right(sasrec, tmp_path):
    import safetensors.torch

    from harness.system import files

    folder = shutil.copytree(sasrec, tmp_path / "x")
    tensors = safetensors.torch.load_file(folder / exported_model.TABLE)
    safetensors.torch.save_file(tensors | {"item_table": tensors["item_table"] * 1.1}, folder / exported_model.TABLE)
    config = json.loads((folder / exported_model.CONFIG).read_text())
    config["files"][exported_model.TABLE] = files.sha256(folder / exported_model.TABLE)
    rewrite(folder, config)
    with pytest.raises(HarnessError, match="self-test 0 fails"):
        exported_model.load(folder)


def test_an_export_of_another_version_is_refused(sasrec, tmp_path):
    from harness.system import files

    folder = shutil.copytree(sasrec, tmp_path / "x")
    config = json.loads((folder / exported_model.CONFIG).read_text())
    config["components"]["backbone"]["version"] += 1
    rewrite(folder, config)
    with pytest.raises(HarnessError, match="of backbone sasrec; this harness has version"):
        exported_model.load(folder)
    files.write_json(folder / exported_model.CONFIG, config | {"schema": 99})
    with pytest.raises(HarnessError, match="newer harness"):
        exported_model.load(folder)


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(made, tmp_path):
    run = first_table(made)[1]
    home = shutil.copytree(made, tmp_path / "home")
    weights = next(
        artifacts.artifact_folder(home, i)
        for i in row_lookup.find(row_lookup.of(Ledger.open(home), run), "gru4rec/id").planned
    )
    out = tmp_path / "out"

    def refused(word, match, **own):
        with pytest.raises(HarnessError, match=match):
            export.write(home, word, out, run=run, **own)
        assert not out.exists()

    refused("popularity", "is not trained")
    refused("sasrec/spektran", "There is no row 'sasrec/spektran'")
    refused("toy/noise/sasrec/spectrum", "Did you mean 'toy/noise/sasrec/spectran'")
    refused("sasrec", "'sasrec' matches 4 rows")
    refused("sasrec/id", "has no seed 7; it has 1", seed=7)
    refused("sasrec/id", "nope.* Give the folder of toy with --dataset FOLDER", dataset="./nope")
    file = weights / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes(4000) + whole[len(whole) // 2 + 4000 :])
    refused("gru4rec/id", "are damaged")
    (weights / checksums.SEAL).unlink()  # as an earlier harness left them: without checksums
    file.write_bytes(whole[:-100])
    refused("gru4rec/id", "are truncated")
    file.write_bytes(whole[: len(whole) // 2] + bytes(4000) + whole[len(whole) // 2 + 4000 :])
    refused("gru4rec/id", "do not reproduce its test ranks")
    file.write_bytes(b"x" * 50)
    refused("gru4rec/id", "are damaged")
    file.unlink()
    refused("gru4rec/id", "are missing")
    out.mkdir()
    with pytest.raises(HarnessError, match="already exists"):
        export.write(home, "sasrec/id", out, run=run)


def test_an_export_needs_neither_home_nor_engine(sasrec, tmp_path):
    folder = shutil.copytree(sasrec, tmp_path / "alone")
    code = (
        "import sys, harness\n"
        f"model = harness.load_export({str(folder)!r})\n"
        "print(model.recommend([['i001', 'i002']], k=3)[0].items)\n"
        "heavy = {'ray', 'mlflow', 'optuna', 'polars', 'click', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "HARNESS_HOME": str(tmp_path / "nowhere")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(exported_model.load(sasrec).recommend([["i001", "i002"]], k=3)[0].items)


def test_an_mlflow_model_answers_alike_and_holds_no_pickle(made, tmp_path):
    run = first_table(made)[1]
    done = command(made, "export", "sasrec/id", "--run", run, "--output", str(tmp_path / "x"), "--mlflow", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] == 60
    served = tmp_path / "served"
    shutil.move(tmp_path / "x" / "mlflow", served)
    assert not [f for f in served.rglob("*") if f.suffix in (".pkl", ".pickle", ".pt", ".pth", ".bin")]
    code = (
        "import mlflow, json, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({str(served)!r})\n"
        "rows = pd.DataFrame({'history': [['i001', 'i002'], [], ['x', 'i003']]})\n"
        "print(json.dumps(model.predict(rows, params={'k': 4})))\n"
    )
    environment = {"PATH": "/usr/bin", "HOME": str(tmp_path), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    asked = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert "Warning" not in done.stderr + asked.stderr
    answers = exported_model.load(tmp_path / "x").recommend([["i001", "i002"], [], ["x", "i003"]], 4)
    assert json.loads(asked.stdout.splitlines()[-1]) == [vars(answer) for answer in answers]


def test_an_mlflow_model_takes_whole_and_broken_seconds_and_needs_builds_that_an_index_has(made, tmp_path):
    folder, run = tmp_path / "x", first_table(made)[1]
    done = command(made, "export", "hstu_time/id", "--run", run, f"--output={folder}", "--mlflow")
    assert done.returncode == 0, done.stderr
    assert "+" not in (folder / "mlflow" / "requirements.txt").read_text(), "a local label, as in torch==2.13.0+cpu"
    code = (
        "import mlflow, json, pandas as pd\n"
        f"model = mlflow.pyfunc.load_model({str(folder / 'mlflow')!r})\n"
        "ask = lambda times: model.predict(pd.DataFrame({'history': [['i001', 'i002']], 'times': [times]}))\n"
        "print(json.dumps([ask([1700000000, 1700000001, 1700000002]), ask([1.7e9, 1.7e9 + 1, 1.7e9 + 2])]))"
    )
    asked = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    whole, broken = json.loads(asked.stdout.splitlines()[-1])
    assert whole == broken
    assert whole[0]["items"]


def test_an_mlflow_model_is_logged_for_its_trial(made, mlflow_store, tmp_path):
    from mlflow import MlflowClient, pyfunc

    run, uri = first_table(made)[1], mlflow_store(tmp_path / "store" / "mlflow.db")
    words = ["export", "sasrec/id", "--run", run, "--mlflow", "--tracking", uri]
    early = command(made, *words, "--output", str(tmp_path / "x"))
    assert early.returncode == 2
    assert "`harness sync` writes it" in early.stderr
    assert not (tmp_path / "x").exists(), "the same command works after a sync"

    assert command(made, "sync", "--tracking", uri).returncode == 0
    done = command(made, *words, "--output", str(tmp_path / "x"), "--json")
    assert done.returncode == 0, done.stderr
    report, client = json.loads(done.stdout), MlflowClient(uri)
    experiment = client.get_experiment_by_name("harness").experiment_id
    (model,) = client.search_logged_models([experiment])
    assert model.status == "READY"
    source = client.get_run(model.source_run_id)
    assert source.data.tags["harness.trial"] == report["trial"]
    assert [one.model_id for one in source.outputs.model_outputs] == [model.model_id]
    loaded = pyfunc.load_model(model.artifact_location)
    answers = exported_model.load(tmp_path / "x").recommend([["i001", "i002"]], 4)
    assert loaded.predict(pd.DataFrame({"history": [["i001", "i002"]]}), params={"k": 4}) == [vars(answers[0])]


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://ann:hunter2@mlflow.lab:5000", "would be sent unencrypted"),
        ("sqlite:///{folder}/none.db", "There is no MLflow store"),
        ("http://127.0.0.1:1", "refused the model"),
        ("off", "no address of an MLflow store"),
    ],
)
def test_a_store_that_cannot_take_the_model_is_refused_before_anything_is_written(made, tmp_path, uri, why):
    words = ["export", "sasrec/id", "--mlflow", "--tracking", uri.format(folder=tmp_path)]
    done = command(made, *words, "--run", first_table(made)[1], "--output", str(tmp_path / "x"))
    assert done.returncode == 2
    assert why in done.stderr
    assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_model_to_log_is_refused(made, tmp_path):
    done = command(made, "export", "sasrec/id", "--output", str(tmp_path / "x"), "--tracking", "sqlite:///x.db")
    assert done.returncode == 2
    assert "add --mlflow" in done.stderr
