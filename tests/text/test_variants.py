"""Several texts an item as one encoder: its word, hash, cache, mean, and the lines that refuse it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import harness
from dataset_files import make_dataset
from text_catalogues import catalogue, damaged_somewhere, matrix

from harness import registry
from harness.checks import linter
from harness.search import plan, selection
from harness.text import embeddings
from harness.text.encoders import noise
from harness.text.encoders._base import Texts, encoder
from harness.types import HarnessError, PrepSpec
from harness.workflows import disk_space

NAMES = ("one", "two", "three")


@pytest.fixture
def files(tmp_path):
    """Three matrices of four items and width 3: item 0 lacks the first text, item 1 all but the first, item 3 all."""
    matrices = np.stack([matrix(seed=seed) for seed in range(3)])
    matrices[0, 0], matrices[1:, 1], matrices[:, 3] = 0, 0, 0
    for name, E in zip(NAMES, matrices, strict=True):
        np.save(tmp_path / f"{name}.npy", E)
    return matrices


def word_of(folder: Path, *names: str) -> str:
    return "variants:" + "+".join(f"file:{folder / name}.npy" for name in names)


def arrays(word: str, texts: Texts, home: Path) -> dict[str, np.ndarray]:
    return embeddings.matrices(encoder(word, home), texts, home)


def refusal(word: str, texts: Texts, home: Path) -> str:
    with pytest.raises(HarnessError) as error:
        arrays(word, texts, home)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the matrix


def test_e_is_the_mean_of_the_texts_that_an_item_has(files, tmp_path):
    found = arrays(word_of(tmp_path, *NAMES), catalogue(), tmp_path)
    np.testing.assert_array_equal(found["variants"], files)
    for i in range(4):
        rows = [E[i].astype(np.float64) for E in files if E[i].any()]
        expected = sum(rows) / len(rows) if rows else np.zeros(3)
        np.testing.assert_array_equal(found["E"][i], expected.astype(np.float32))
    info = embeddings.embedding_info(encoder(word_of(tmp_path, *NAMES), tmp_path), catalogue(), tmp_path)
    assert info == {"texts": 3, "incomplete": 2}


def test_where_no_item_has_two_different_texts_there_are_no_variants(files, tmp_path, capsys):
    found = arrays(word_of(tmp_path, "two", "two", "two"), catalogue(), tmp_path)
    np.testing.assert_array_equal(found["E"], files[1])
    assert "variants" not in found
    assert "no item has texts with different rows" in capsys.readouterr().err
    disjoint = [np.where([[True], [True], [False], [False]], files[2] + 1, 0)]
    disjoint.append(np.where([[False], [False], [True], [True]], files[2] + 2, 0))
    for name, E in zip("ab", disjoint, strict=True):
        np.save(tmp_path / f"{name}.npy", E)
    found = arrays(word_of(tmp_path, "a", "b"), catalogue(), tmp_path)
    np.testing.assert_array_equal(found["E"], sum(disjoint))
    assert "variants" not in found


def test_shuffled_moves_all_texts_of_an_item_together(tmp_path):
    for seed in range(2):
        E = matrix(20, seed=seed)
        E[3 + seed], E[9] = 0, 0  # the texts lack different items
        np.save(tmp_path / f"{NAMES[seed]}.npy", E)
    word = word_of(tmp_path, "one", "two")
    plain, moved = (arrays(f"{prefix}{word}", catalogue(20), tmp_path) for prefix in ("", "shuffled:"))
    rows = [plain["variants"][:, i].tobytes() for i in range(20)]
    came_from = [rows.index(moved["variants"][:, i].tobytes()) for i in range(20)]
    assert sorted(came_from) == list(range(20))
    assert [i for i in range(20) if came_from[i] == i] == [9]
    np.testing.assert_array_equal(moved["E"], plain["E"][came_from])


# --- hash and cache


def test_the_hash_depends_on_the_texts_and_their_order_and_not_on_where_files_lie(files, tmp_path):
    def key(word):
        return embeddings.embedding_hash(encoder(word, tmp_path), catalogue())

    (tmp_path / "sub").mkdir()
    for name, E in zip(NAMES, files, strict=True):
        np.save(tmp_path / "sub" / f"{name}.npy", E)
    here = key(word_of(tmp_path, "one", "two"))
    assert key(word_of(tmp_path / "sub", "one", "two")) == here
    others = {key(word_of(tmp_path, *names)) for names in (("two", "one"), ("one", "three"), NAMES, ("one", "one"))}
    assert len(others | {here, key(f"file:{tmp_path}/one.npy")}) == 6


def test_texts_are_taken_from_the_cache_of_their_encoders_and_damage_is_repaired(tmp_path, monkeypatch):
    word = "variants:noise+shuffled:noise"
    arrays("noise", catalogue(), tmp_path)
    monkeypatch.setattr(noise.Noise, "encode", lambda *_: pytest.fail("computed twice"))
    found = {name: array.copy() for name, array in arrays(word, catalogue(), tmp_path).items()}
    key = embeddings.embedding_hash(encoder(word, tmp_path), catalogue())
    damaged_somewhere(tmp_path / "cache" / "embeddings" / key / "variants.npy")
    again = arrays(word, catalogue(), tmp_path)
    assert set(again) == {"E", "variants"}
    for name, array in found.items():
        np.testing.assert_array_equal(again[name], array)
    cached = embeddings.cached(key, tmp_path)
    assert cached is not None
    np.testing.assert_array_equal(cached["variants"], found["variants"])


# --- words and refusals


def test_a_plus_sign_in_a_path_is_part_of_the_path(tmp_path):
    (tmp_path / "c++").mkdir()
    np.save(tmp_path / "c++" / "a+b.npy", matrix())
    word = f"variants:file:{tmp_path}/c++/a+b.npy+noise+shuffled:file:{tmp_path}/c++/a+b.npy"
    made = encoder(word, tmp_path)
    assert made.word == word
    assert made.label == "variants:file:a+b.npy+noise+shuffled:file:a+b.npy"
    assert list(selection.encoders(f"minilm,{word}", tmp_path)) == ["minilm", made.label]
    assert registry.split_list(registry.quoted(word)) == [word]


def test_an_option_in_brackets_belongs_to_its_encoder(tmp_path):
    made = encoder("variants:hf:some/model[pooling=last,max_tokens=64]+hf:some/model[max_tokens=64]", tmp_path)
    assert made.word == "variants:hf:some/model[pooling=last,max_tokens=64]+hf:some/model[max_tokens=64]"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("variants", "needs two encoders or more, such as variants:own:title.own:full, after a colon"),
        ("variants:noise", "'variants:noise' needs two encoders or more, such as .* but it names one, noise\\."),
        (
            "variants:own:title+full",
            "needs two encoders or more, .* but the 'full' after '\\+' is no encoder. Known: api",
        ),
        ("variants:noise+minlm", "but the 'minlm' after '\\+' is no encoder. Did you mean 'minilm'"),
        ("variants:noise+", "but it names one, noise\\+"),
        ("variants:noise+shuffled:noize", "There is no encoder 'noize'. Did you mean 'noise'"),
        ("variants:noise+variants:minilm+noise", "needs two encoders or more"),
        ("variants:noise+file:gone.npy", "gone.npy: no such file"),
    ],
)
def test_a_word_that_names_no_two_encoders_is_refused(tmp_path, word, says):
    with pytest.raises(HarnessError, match=says) as error:
        encoder(word, tmp_path)
    assert "\n" not in str(error.value)


def test_texts_of_different_widths_are_refused_with_both(files, tmp_path):
    np.save(tmp_path / "wide.npy", matrix(4, 5))
    word = word_of(tmp_path, "one", "wide")
    assert refusal(word, catalogue(), tmp_path) == (
        f"'{word}': the widths differ: file:one.npy 3, file:wide.npy 5. Join matrices of one encoder."
    )


def test_texts_that_add_up_to_zero_are_no_item_without_text(files, tmp_path):
    E = matrix()
    opposite = E.copy()
    opposite[2] *= -1
    np.save(tmp_path / "a.npy", E)
    np.save(tmp_path / "b.npy", opposite)
    assert "texts of item 'i2' add up to zero" in refusal(word_of(tmp_path, "a", "b"), catalogue(), tmp_path)


def test_a_bad_number_names_the_item_and_the_encoder(files, tmp_path):
    E = matrix()
    E[1, 0] = np.inf
    np.save(tmp_path / "bad.npy", E)
    said = refusal(word_of(tmp_path, "one", "bad"), catalogue(), tmp_path)
    assert said == f"'file:{tmp_path}/bad.npy': the embedding of item 'i1' (row 1) is NaN or infinite."


# --- the bench around it


@pytest.fixture
def shop(tmp_path):
    """A folder whose data set declares two matrices, one of which lacks an item."""
    folder = make_dataset(tmp_path / "shop", users=30, items=20)
    for seed, name in enumerate(("title", "full")):
        E = matrix(20, 6, seed=seed)
        E[5] *= seed
        np.save(folder / f"{name}.npy", E)
    (folder / "dataset.toml").write_text('[embeddings]\ntitle = "title.npy"\nfull = "full.npy"\n')
    return folder


def test_matrices_of_the_data_set_are_prepared_shown_and_checked(shop, home):
    word = "variants:own:title+own:full"
    done = harness(home, "prepare", str(shop), "--encoders", word, "--kcore", "0")
    assert done.returncode == 0, done.stderr
    assert "mean of 2 texts an item, 1 items with text have fewer" in " ".join(done.stdout.split())
    report = linter.examine(str(shop), home, word, PrepSpec(kcore=0))
    assert report.encoder == word
    assert not [finding for finding in report.findings if finding.name in ("shape", "embedding", "NaN rows")]
    E = np.load(shop / "full.npy")
    E[3] = np.nan
    np.save(shop / "full.npy", E)
    findings = linter.examine(str(shop), home, word, PrepSpec(kcore=0)).findings
    assert [finding.says for finding in findings if finding.name == "embedding"] == [
        f"'file:{shop}/full.npy': the embedding of item 'i003' (row 3) is NaN or infinite"
    ]


def test_the_price_is_that_of_the_paid_encoders_in_it(shop, home):
    word = "variants:api:model-a+shuffled:api:model-b"
    done = harness(home, "prepare", str(shop), "--encoders", word, "--kcore", "0", "--cost", "1")
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[0].partition(" / ")[2] for line in done.stdout.splitlines()] == [
        "api:model-a",
        "api:model-b",
    ]


def test_a_data_set_without_texts_is_left_out_if_an_encoder_needs_them(tmp_path):
    blank = catalogue(4, missing=(0, 1, 2, 3))
    np.save(tmp_path / "m.npy", matrix())
    assert embeddings.can_encode(encoder(word_of(tmp_path, "m", "m"), tmp_path), blank)
    assert not embeddings.can_encode(encoder(f"variants:minilm+file:{tmp_path}/m.npy", tmp_path), blank)


def test_the_estimate_of_disk_use_counts_every_text(shop, home):
    def need(word):
        request = plan.Request(home, str(shop), "linear", encoders=word, prep=PrepSpec(kcore=0))
        return disk_space.needed(plan.make(request, plan.Ledger.open(home)))

    assert need("variants:own:title+own:full") - need("own:title") == 4 * 4 * disk_space.WIDTH * 20
