"""Data sets by name: user folders, and every family built from synthetic files of the real formats, served locally."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from command_line import harness
from dataset_files import SHARED, make_dataset, write_dataset
from file_server import Handler, Server, left, make_tar, make_zip, sha

from harness import registry
from harness.data import library
from harness.data.datasets import _read, amazon2018, amazon2023, goodreads, gowalla, ml, steam, yelp
from harness.data.preparation import prepare
from harness.data.reader import open_dataset, ready, register
from harness.types import HarnessError, PrepSpec
from harness.workflows import components

DAY = 1_400_000_000 // 86400 * 86400


def serve(web: Server, url: str, body: bytes) -> str:
    """Put `body` at an address and return its sha256."""
    web.bodies[f"/web/{urlsplit(url).hostname}{urlsplit(url).path}"] = body
    return sha(body)


def json_lines(records: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode(), mtime=0)


def literals(records: list[dict[str, Any]]) -> bytes:
    return gzip.compress("".join(repr(record) + "\n" for record in records).encode(), mtime=0)


def frames(name: str, home: Path) -> tuple[list[tuple], dict[str, dict[str, Any]]]:
    """Rows of the events, and items by id."""
    raw = open_dataset(name, home)
    items = pl.read_parquet(raw.items)
    return pl.read_parquet(raw.interactions).rows(), {item.pop("item_id"): item for item in items.to_dicts()}


# names


def test_every_variant_of_a_family_has_a_name_and_can_be_loaded():
    names = library.built_in()
    categories = ["beauty", "toys", "clothing", "office", "sports", "games"]
    wanted = {f"amazon{year}-{category}" for year in (2014, 2018, 2023) for category in categories}
    wanted |= {f"ml-{size}" for size in ["100k", "1m", "10m", "20m", "25m", "32m"]} | {
        "steam",
        "yelp",
        "gowalla",
        "goodreads-poetry",
    }
    assert wanted <= set(names)
    for name in names:
        found = library.component(name)
        assert found.name == name
        assert found.licence
        assert "http" in found.citation
        assert not found.ready(Path("/nowhere"))


def test_sources_have_mirrors_valid_hashes_and_unique_files():
    places = {}
    for name in library.built_in():
        if name == "ml-100k":
            continue
        sources = library.component(name).sources()
        assert sources
        for source in sources.values():
            assert places.setdefault(source.file, source.urls) == source.urls
            assert all(url.startswith("http") and url.endswith(Path(source.file).name) for url in source.urls)
            assert source.sha256 is None or len(bytes.fromhex(source.sha256)) == 32


def test_list_and_show_import_nothing_heavy_and_download_nothing(home):
    code = "import sys; from pathlib import Path; from harness.workflows import components; h = Path(sys.argv[1]); "
    code += "print(components.text(components.all_of(h)), components.details(components.one('amazon2018_toys', h))); "
    code += "print('loaded', *sorted({'polars', 'numpy', 'requests', 'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("loaded\n")
    assert "amazon2023-beauty-personal-care" in done.stdout
    assert "goodreads-mystery-thriller-crime," in done.stdout
    assert "harness prepare amazon2018-toys" in done.stdout
    assert amazon2018.SHA256["toys"] in done.stdout
    assert list(home.iterdir()) == []


def test_unknown_names_get_the_nearest_one(home):
    with pytest.raises(HarnessError, match="Did you mean 'amazon2014-beauty'"):
        open_dataset("amazon2014-beuty", home)
    with pytest.raises(HarnessError, match="Did you mean 'ml-20m'"):
        components.one("ml-20", home)


def test_a_newcomer_adds_one_file(home, monkeypatch, tmp_path):
    source = '''"""Two shops."""
from pathlib import Path
class Shops:
    variants = ("north", "south")
    text = licence = citation = ""
    def __init__(self, variant): self.name = "shops-" + variant
    def ready(self, home): return (Path(home) / self.name).exists()
    def fetch(self, home): return Path(home)
'''
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "__init__.py").write_text("")
    (tmp_path / "new" / "shops.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "DATASETS", "new")
    assert library.built_in() == {"shops-north": ("shops", "north"), "shops-south": ("shops", "south")}
    (home / "shops-south").mkdir()
    assert ready(home) == ["shops-south"]


# the user's folders


def test_a_registered_folder_takes_precedence_over_a_built_in_data_set(home, tmp_path, dataset):
    assert register("shop", dataset, home).name == "shop"
    assert register("ml-100k", make_dataset(tmp_path / "mine"), home).interactions.parent == tmp_path / "mine"
    register("shop", dataset, home)
    assert ready(home) == ["ml-100k", "shop"]
    assert open_dataset("shop", home).interactions.parent == dataset
    assert "Harper" in open_dataset("ml-100k", home).citation
    assert open_dataset("shop", home).citation == ""
    assert prepare(open_dataset("ml-100k", home), PrepSpec(kcore=0), home).card.name == "ml-100k"
    entries = components.all_of(home)["datasets"]
    assert [entry["name"] for entry in entries[:2]] == ["ml-100k", "shop"]
    assert [entry["name"] for entry in entries].count("ml-100k") == 1
    assert components.one("shop", home)["users"] == 60
    (tmp_path / "mine" / "items.parquet").rename(tmp_path / "items.parquet")
    (tmp_path / "mine" / "interactions.parquet").unlink()
    (tmp_path / "mine").rmdir()
    assert ready(home) == ["shop"]
    with pytest.raises(HarnessError, match=r"'ml-100k' is .*/mine in .*config\.toml, but that is not a folder"):
        open_dataset("ml-100k", home)


def test_the_config_keeps_its_lines_and_relative_paths_are_relative_to_it(home, tmp_path, dataset):
    text = '# mine\n\n[datasets] # sets\n"a.b" = "../toy"  # this\n\n[embeddings]\nkey = { titles = "[datasets]" }\n'
    (home / "config.toml").write_text(text)
    assert library.folders(home) == {"a.b": dataset}
    odd = make_dataset(tmp_path / 'quo"ted \\ ü')
    register("odd", odd, home)
    assert library.folders(home) == {"odd": odd, "a.b": dataset}
    new = (home / "config.toml").read_text()
    assert [line for line in new.splitlines() if not line.startswith('"odd"')] == text.splitlines()
    assert left(home) == ["config.toml"]


def test_two_processes_may_register_at_once(home, dataset):
    code = "import sys; from pathlib import Path; from harness.data.reader import register; a, b, c = sys.argv[1:]; "
    code += "[register(f'{a}-{k}', Path(b), Path(c)) for k in range(20)]"
    words = [[sys.executable, "-c", code, f"shop{k}", str(dataset), str(home)] for k in range(2)]
    assert [process.wait(60) for process in [subprocess.Popen(command) for command in words]] == [0, 0]
    assert set(library.folders(home)) == {f"shop{k}-{n}" for k in range(2) for n in range(20)}


def test_an_invalid_registration_is_a_one_line_error_and_changes_nothing(home, tmp_path, dataset):
    def refusal(name: str, folder: Path) -> str:
        with pytest.raises(HarnessError) as caught:
            register(name, folder, home)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is not a folder" in refusal("shop", tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "has neither interactions.parquet" in refusal("shop", tmp_path / "empty")
    bad = write_dataset(tmp_path / "bad", {"user": ["u"], "item_id": ["a"]}, {"item_id": ["a"], "title": ["A"]})
    assert "no column 'user_id'. Did you mean 'user'?" in refusal("shop", bad)
    assert "is not a valid data set name" in refusal("a/b", dataset)
    assert not (home / "config.toml").exists()
    register("shop", dataset, home)
    before = (home / "config.toml").read_text()
    assert f"'shop' is already {dataset}" in refusal("shop", make_dataset(tmp_path / "other"))
    assert (home / "config.toml").read_text() == before
    (home / "config.toml").write_text(inline := 'datasets = {a = "b"}\n')
    assert "No line can be added" in refusal("shop", dataset)
    assert (home / "config.toml").read_text() == inline


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[datasets", "not TOML"),
        (b"datasets = 3", "[datasets] must be a table"),
        (b"[datasets]\nshop = 3", "datasets.shop must be the path of a folder"),
        (b"[datasets]\n'a/b' = 'c'", "'a/b' is not a valid name for a data set"),
        (b"[datasets]\nshop = '\xff'", "line 2 is not UTF-8"),
    ],
    ids=["no TOML", "no table", "no text", "bad name", "no UTF-8"],
)
def test_a_malformed_config_is_a_one_line_error_for_every_reader(home, text, words):
    (home / "config.toml").write_bytes(text)
    for read in (ready, components.all_of, lambda h: open_dataset("ml-100k", h), lambda h: library.find("shop", h)):
        with pytest.raises(HarnessError) as caught:
            read(home)
        assert f"{home / 'config.toml'}" in str(caught.value)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


# the families


def ml_zip(size: str, ratings: str, movies: bytes, folder: str = "") -> bytes:
    inner, kind = folder or f"ml-{size}", "dat" if size in ("1m", "10m") else "csv"
    return make_zip({f"{inner}/ratings.{kind}": ratings.encode(), f"{inner}/movies.{kind}": movies})


DAT = "1::1193::5::978300760\n1::661::3.5::978302109\n2::1193::4::978298413\n"
DAT_MOVIES = (
    "661::Misérables, Les (1995)::Drama|Musical\n1193::Cuckoo&#39;s Nest (1975)::Drama\n9::Unseen (1990)::War\n"
)


@pytest.mark.parametrize(("size", "folder", "encoding"), [("1m", "", "latin-1"), ("10m", "ml-10M100K", "utf-8")])
def test_movielens_with_double_colons_is_read(web, home, monkeypatch, size, folder, encoding):
    body = ml_zip(size, DAT, DAT_MOVIES.encode(encoding), folder)
    monkeypatch.setitem(ml.SHA256, size, serve(web, ml.URL.format(size), body))
    events, items = frames(f"ml-{size}", home)
    assert events == [("1", "1193", 978300760, 5.0), ("1", "661", 978302109, 3.5), ("2", "1193", 978298413, 4.0)]
    assert list(items) == ["661", "1193"]
    assert items["1193"]["title"] == "Cuckoo's Nest"
    assert items["661"] == {"title": "Misérables, Les", "year": 1995, "genres": ["Drama", "Musical"]}


def test_movielens_csv_has_quoted_titles_and_an_unpublished_hash_is_recorded(web, home):
    ratings = "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n1,25,1.0,944250228\n"
    movies = 'movieId,title,genres\n17,"Sense, ""The"" (1995)",Drama|Romance\n25,Babylon 5,(no genres listed)\n'
    digest = serve(web, ml.URL.format("32m"), ml_zip("32m", ratings, movies.encode()))
    events, items = frames("ml-32m", home)
    assert events == [("1", "17", 944249077, 4.0), ("1", "25", 944250228, 1.0)]
    assert items["17"] == {"title": 'Sense, "The"', "year": 1995, "genres": ["Drama", "Romance"]}
    assert items["25"] == {"title": "Babylon 5", "year": None, "genres": []}
    assert f'"ml-32m.zip" = "{digest}"' in (home / "data" / "locks" / "ml-32m.toml").read_text()
    assert ready(home) == ["ml-32m"]


REVIEWS = [
    {"reviewerID": "U1", "asin": "B1", "overall": 5.0, "unixReviewTime": DAY, "reviewText": "x"},
    {"reviewerID": "U2", "asin": "B1", "overall": 4.0, "unixReviewTime": DAY},
    {"reviewerID": "U1", "asin": "B2", "overall": 3.0, "unixReviewTime": DAY},
    {"reviewerID": "U2", "asin": "B3", "overall": 1.0, "unixReviewTime": DAY + 86400},
]
PRODUCTS = [
    {"asin": "B0", "title": "Never bought"},
    {
        "asin": "B2",
        "title": "Salt &amp;amp; <b>Pepper</b>\n set",
        "brand": "O'Neill",
        "categories": [["Beauty", "Skin"], ["Beauty", "Hair"]],
        "description": "It's",
        "price": 2.5,
        "related": {"also_bought": ["B1"]},
    },
    {"asin": "B1", "imUrl": "http://x"},
]
CHECKED = "amazon2014/reviews_Beauty_5.json.gz"


def serve_2014(web: Server, meta: bytes | None = None) -> None:
    base = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
    serve(web, f"{base}/reviews_Beauty_5.json.gz", json_lines(REVIEWS))
    serve(web, f"{base}/meta_Beauty.json.gz", literals(PRODUCTS) if meta is None else meta)


def test_amazon_2014_keeps_the_order_of_ties_and_reads_literals(web, home, capsys):
    serve_2014(web)
    events, items = frames("amazon2014-beauty", home)
    assert events == [
        ("U1", "B1", DAY, 5.0),
        ("U2", "B1", DAY, 4.0),
        ("U1", "B2", DAY, 3.0),
        ("U2", "B3", DAY + 86400, 1.0),
    ]
    nothing = {"title": None, "brand": None, "description": None}
    assert items == {
        "B2": {
            "title": "Salt & Pepper set",
            "brand": "O'Neill",
            "categories": ["Beauty", "Skin", "Hair"],
            "description": "It's",
        },
        "B1": {**nothing, "categories": []},
        "B3": {**nothing, "categories": None},
    }
    assert "no redistribution" in capsys.readouterr().err
    frames("amazon2014-beauty", home)
    assert (capsys.readouterr().err, len(web.asked)) == ("", 2)


def test_a_hash_recorded_at_first_use_is_verified_from_then_on(web, home):
    serve_2014(web)
    frames("amazon2014-beauty", home)
    lock = home / "data" / "locks" / "amazon2014-beauty.toml"
    assert f'"{CHECKED}" = "{sha(json_lines(REVIEWS))}"' in lock.read_text()
    folder = home / "data" / "amazon2014-beauty"
    (folder / "items.parquet").unlink()
    with pytest.raises(HarnessError, match="delete the folder"):
        open_dataset("amazon2014-beauty", home)
    (folder / "interactions.parquet").unlink()
    folder.rmdir()
    REVIEWS[0]["overall"] = 1.0
    try:
        serve_2014(web)
        assert frames("amazon2014-beauty", home)[0][0][3] == 5.0  # the file of the first time is still there
        (home / "downloads" / CHECKED).unlink()
        for part in ("interactions", "items"):
            (folder / f"{part}.parquet").unlink()
        folder.rmdir()
        with pytest.raises(HarnessError) as caught:
            open_dataset("amazon2014-beauty", home)
        assert "(wrong sha256)" in str(caught.value)
        assert f"recorded in {lock}" in str(caught.value)
        lock.write_text("".join(line for line in lock.read_text().splitlines(True) if CHECKED not in line))
        assert frames("amazon2014-beauty", home)[0][0][3] == 1.0
    finally:
        REVIEWS[0]["overall"] = 5.0
    lock.write_text("[broken")
    assert ready(home) == ["amazon2014-beauty"]


def test_an_unreadable_file_is_not_recorded_and_leaves_no_data_set(web, home):
    whole = literals(PRODUCTS)
    for meta, words in (
        (whole[:-12], "meta_Beauty.json.gz: the archive is damaged"),
        (b"<html>portal</html>", "is damaged"),
        (gzip.compress(b"{'asin': __import__('os').getcwd()}\n"), "line 1 cannot be read"),
        (gzip.compress(b"{'asin': 'B1'}\n[1]\n"), "line 2 is not a record"),
        (gzip.compress(b"(" * 5000 + b"\n"), "line 1 cannot be read"),
        (literals([{"asin": "X", "title": "of another file"}]), "has no item of the interactions"),
    ):
        serve_2014(web, meta)
        with pytest.raises(HarnessError) as caught:
            open_dataset("amazon2014-beauty", home)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert left(home / "data") == []
        (home / "downloads" / "amazon2014" / "meta_Beauty.json.gz").unlink()
    serve_2014(web)
    assert len(frames("amazon2014-beauty", home)[1]) == 3


def test_amazon_2018_has_its_columns_swapped_and_script_and_markup_in_titles(web, home, monkeypatch):
    host = amazon2018.HOSTS[0]
    body = b"B1,U1,5.0,1400000000\nB2,U1,3.0,1400000001\nB3,U2,1.0,1400000002\nB4,U2,1.0,1400000003\n"
    monkeypatch.setitem(amazon2018.SHA256, "games", serve(web, f"{host}/categoryFilesSmall/Video_Games.csv", body))
    products = [
        {"asin": "B1", "title": "Zelda", "brand": "by\n    Nintendo", "category": ["Games", "</span></span> x", "Wii"]},
        {"asin": "B1", "title": "Zelda again"},
        {"asin": "B2", "title": "var a = new Date().getTime();", "description": ["One.", "Two &amp; three."]},
        {"asin": "B3", "title": "", "category": [], "description": []},
        {"asin": "B4", "title": '<span id="priceblock_ourprice">$5</span> Brush', "brand": "Acme"},
    ]
    serve(web, f"{host}/metaFiles2/meta_Video_Games.json.gz", json_lines(products))
    events, items = frames("amazon2018-games", home)
    assert events[:2] == [("U1", "B1", 1400000000, 5.0), ("U1", "B2", 1400000001, 3.0)]
    assert items["B1"] == {"title": "Zelda", "brand": "Nintendo", "categories": ["Games", "Wii"], "description": None}
    assert (items["B2"]["title"], items["B2"]["description"]) == (None, "One. Two & three.")
    assert items["B3"]["title"] is None
    assert (items["B4"]["title"], items["B4"]["brand"]) == (None, "Acme")


def test_amazon_2023_has_milliseconds_and_parent_asins(web, home, monkeypatch):
    host = amazon2023.HOSTS[0]
    body = gzip.compress(b"user_id,parent_asin,rating,timestamp\nU1,B1,5.0,1628643414750\nU2,B1,2.0,1628643415000\n")
    address = f"{host}/benchmark/0core/rating_only/Office_Products.csv.gz"
    monkeypatch.setitem(amazon2023.SHA256, "office", serve(web, address, body))
    product = {
        "parent_asin": "B1",
        "title": "Pen",
        "store": "Bic",
        "categories": ["Office"],
        "features": ["Blue", "Red"],
    }
    serve(web, f"{host}/raw/meta_categories/meta_Office_Products.jsonl.gz", json_lines([product]))
    events, items = frames("amazon2023-office", home)
    assert events == [("U1", "B1", 1628643414.75, 5.0), ("U2", "B1", 1628643415.0, 2.0)]
    assert items["B1"]["features"] == "Blue Red"
    assert items["B1"]["brand"] == "Bic"


def test_events_within_a_second_keep_their_order_in_time(web, home, monkeypatch):
    host, rows = amazon2023.HOSTS[0], ["user_id,parent_asin,rating,timestamp"]
    for user in ("U1", "U2"):
        rows += [f"{user},A,5.0,1600000000900", f"{user},B,5.0,1600000000100", f"{user},C,5.0,1500000000000"]
    address = f"{host}/benchmark/0core/rating_only/Office_Products.csv.gz"
    monkeypatch.setitem(amazon2023.SHA256, "office", serve(web, address, gzip.compress("\n".join(rows).encode())))
    products = [{"parent_asin": name, "title": name} for name in "ABC"]
    serve(web, f"{host}/raw/meta_categories/meta_Office_Products.jsonl.gz", json_lines(products))
    prepared = prepare(open_dataset("amazon2023-office", home), PrepSpec(kcore=0), home)
    names = prepared.catalogue["item_id"].to_list()
    assert [names[item - 1] for item in prepared.items[:3]] == ["C", "B", "A"]
    assert prepared.card.tie_share == 0


def test_a_csv_of_another_form_is_reported(web, home, monkeypatch):
    address = f"{amazon2018.HOSTS[0]}/categoryFilesSmall/Video_Games.csv"
    serve(web, f"{amazon2018.HOSTS[0]}/metaFiles2/meta_Video_Games.json.gz", json_lines([{"asin": "B1"}]))
    for body, words in (
        (b"B1,U1,5.0\n", "has a row of 3 fields, expected 4"),
        (b"B1,U1,5.0,1\nB1,U1,5.0,1,9\n", "cannot be read as CSV"),
        (b"B1,U1,5.0,yesterday\n", "has an invalid row: conversion from `str` to `i64` failed"),
        (b"B1,U1,5.0,1\nB1,U1\n", "has a row of fewer than 4 fields"),
    ):
        monkeypatch.setitem(amazon2018.SHA256, "games", serve(web, address, body))
        with pytest.raises(HarnessError) as caught:
            open_dataset("amazon2018-games", home)
        assert words in str(caught.value)
        assert "Video_Games.csv" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert left(home / "data") == []
    body = gzip.compress(b"user,item,rating,timestamp\nU1,B1,5.0,1628643414999\n")
    address = f"{amazon2023.HOSTS[0]}/benchmark/0core/rating_only/Video_Games.csv.gz"
    monkeypatch.setitem(amazon2023.SHA256, "games", serve(web, address, body))
    serve(web, f"{amazon2023.HOSTS[0]}/raw/meta_categories/meta_Video_Games.jsonl.gz", json_lines([]))
    with pytest.raises(HarnessError, match="the columns 'user,item,rating,timestamp', expected 'user_id,parent_asin"):
        open_dataset("amazon2023-games", home)
    body = gzip.compress(b"user_id,parent_asin,rating,timestamp\n")
    monkeypatch.setitem(amazon2023.SHA256, "games", serve(web, address, body))
    with pytest.raises(HarnessError, match=r"Video_Games\.csv\.gz has no rows"):
        open_dataset("amazon2023-games", home)


def test_steam_is_read_from_literals_with_days_as_seconds(web, home, monkeypatch):
    reviews = [
        {"username": "Chaos Syren", "hours": 0.1, "product_id": "725280", "date": "2017-12-17", "text": "nö"},
        {"username": "₮Ʌ", "product_id": "35140", "date": "2018-01-05"},
    ]
    games = [
        {"app_name": "nameless", "title": "no id"},
        {"id": "725280", "app_name": "Psycho &amp; Co", "developer": "Stef", "genres": ["Action"], "tags": ["Gore"]},
    ]
    monkeypatch.setattr(steam, "REVIEWS_SHA256", serve(web, f"{steam.HOST}/steam_reviews.json.gz", literals(reviews)))
    serve(web, f"{steam.HOST}/steam_games.json.gz", literals(games))
    events, items = frames("steam", home)
    assert events == [("Chaos Syren", "725280", 1513468800, pytest.approx(0.1)), ("₮Ʌ", "35140", 1515110400, None)]
    assert items["725280"]["title"] == "Psycho & Co"
    assert items["725280"]["tags"] == ["Gore"]
    assert items["35140"]["title"] is None


def test_goodreads_times_are_converted_to_utc_and_shelves_without_subject_are_dropped(web, home, monkeypatch):
    added = "Fri Sep 08 10:44:24 -0700 2017"
    events = [
        {"user_id": "a1", "book_id": "16", "is_read": True, "rating": 4, "date_added": added},
        {"user_id": "a1", "book_id": "17", "is_read": False, "rating": 0, "date_added": added},
    ]
    shelves = [{"count": "9", "name": "to-read"}, {"count": "3", "name": "classics"}]
    books = [{"book_id": "16", "title": "Odes", "publisher": "P", "popular_shelves": shelves, "description": ""}]
    host = goodreads.HOSTS[1]  # the first mirror has nothing
    address = f"{host}/goodreads_interactions_poetry.json.gz"
    monkeypatch.setitem(goodreads.SHA256, "poetry", serve(web, address, json_lines(events)))
    serve(web, f"{host}/goodreads_books_poetry.json.gz", json_lines(books))
    rows, items = frames("goodreads-poetry", home)
    assert rows == [("a1", "16", 1504892664, 4.0, True), ("a1", "17", 1504892664, None, False)]
    assert items["16"] == {"title": "Odes", "brand": "P", "categories": ["classics"], "description": None}
    bad = [{**events[0], "date_added": "yesterday"}]
    monkeypatch.setitem(goodreads.SHA256, "poetry", serve(web, address, json_lines(bad)))
    with pytest.raises(HarnessError, match="has an invalid row"):
        open_dataset("goodreads-poetry", home / "other")
    del bad[0]["date_added"]
    monkeypatch.setitem(goodreads.SHA256, "poetry", serve(web, address, json_lines(bad)))
    with pytest.raises(HarnessError, match="record 1 has no field 'date_added'"):
        open_dataset("goodreads-poetry", home / "other")


def test_events_of_goodreads_without_a_rating_have_none_from_4_on(web, home, monkeypatch):
    """They are meant so; in a user's own folder, a missing rating is a fault."""
    added = "Fri Sep 08 10:44:{:02} -0700 2017"
    events = [
        {"user_id": u, "book_id": b, "is_read": True, "rating": r, "date_added": added.format(n)}
        for n, (u, b, r) in enumerate(
            (u, b, r) for u in ("a", "b") for b, r in (("1", 4), ("2", 0), ("3", 5), ("4", 3))
        )
    ]
    books = [{"book_id": b, "title": b, "popular_shelves": []} for b in "1234"]
    host = goodreads.HOSTS[1]
    address = f"{host}/goodreads_interactions_poetry.json.gz"
    monkeypatch.setitem(goodreads.SHA256, "poetry", serve(web, address, json_lines(events)))
    serve(web, f"{host}/goodreads_books_poetry.json.gz", json_lines(books))
    kept = prepare(open_dataset("goodreads-poetry", home), PrepSpec(kcore=0, min_rating=4), home)
    assert kept.catalogue["item_id"].to_list() == ["1", "3"]
    assert kept.card.events == 4


def test_gowalla_has_no_text(web, home, monkeypatch):
    line = "{}\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t{}\n"
    body = gzip.compress("".join(line.format(user, 22847 + place) for user in range(5) for place in range(5)).encode())
    monkeypatch.setattr(gowalla, "SHA256", serve(web, gowalla.URL, body))
    events, items = frames("gowalla", home)
    assert events[0] == ("0", "22847", 1287532527)
    assert (len(events), list(items.values())) == (25, [{}] * 5)
    prepared = prepare(open_dataset("gowalla", home), PrepSpec(), home)
    assert prepared.catalogue["text"].null_count() == 5


def yelp_zip(*, business: bool = True) -> bytes:
    review = {"user_id": "u", "business_id": "b", "stars": 4.0, "date": "2018-07-07 22:09:11", "text": "x"}
    place = {"business_id": "b", "name": "Caf&eacute; X", "city": "Tampa", "state": "FL", "categories": "Food, Bars"}
    members = {"yelp_academic_dataset_review.json": (json.dumps(review) + "\n").encode()}
    if business:
        members = {"yelp_academic_dataset_business.json": (json.dumps(place) + "\n").encode(), **members}
    tar = make_tar({"Dataset_User_Agreement.pdf": b"", **members, "yelp_academic_dataset_tip.json": b"no json"})
    return make_zip({"__MACOSX/Yelp JSON/yelp_dataset.tar": b"", "Yelp JSON/yelp_dataset.tar": tar})


def test_yelp_needs_a_manual_download_and_accepted_terms(home, monkeypatch):
    monkeypatch.delenv(yelp.ACCEPTED, raising=False)
    body, place = yelp_zip(), home / "downloads" / "Yelp-JSON.zip"
    monkeypatch.setattr(yelp, "SHA256", sha(body))
    place.parent.mkdir()
    place.write_bytes(body)
    with pytest.raises(HarnessError) as caught:
        open_dataset("yelp", home)
    for word in (str(place), "HARNESS_YELP_ACCEPTED=1", str(home / "downloads" / "yelp.accepted"), "accept the terms"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    (home / "downloads" / "yelp.accepted").touch()
    events, items = frames("yelp", home)
    assert events == [("u", "b", 1531001351, 4.0)]
    assert items["b"] == {"title": "Café X", "city": "Tampa", "state": "FL", "categories": ["Food", "Bars"]}
    monkeypatch.setenv(yelp.ACCEPTED, "1")
    with pytest.raises(HarnessError, match=r"put it at .*Yelp-JSON\.zip and rerun\. See https://business"):
        open_dataset("yelp", home / "other")
    (home / "third" / "downloads").mkdir(parents=True)
    (home / "third" / "downloads" / "Yelp-JSON.zip").write_bytes(body := yelp_zip(business=False))
    monkeypatch.setattr(yelp, "SHA256", sha(body))
    with pytest.raises(HarnessError, match=r"contains no yelp_academic_dataset_business\.json"):
        open_dataset("yelp", home / "third")


def test_half_an_emoji_and_invalid_numbers_do_not_end_in_a_traceback():
    assert _read.clean("cut off \ud83d") == "cut off \ufffd"
    assert _read.clean("Café \U0001f600 &amp;amp; \ud83d\ude00") == "Café \U0001f600 & \U0001f600"
    archive, kinds = Path("reviews.json.gz"), {"user_id": pl.String, "timestamp": pl.Int64}
    for rows in ([("u\ud800", 1)], [("u", 2**70)], [("u", "soon")]):
        with pytest.raises(HarnessError, match="has an invalid row"):
            list(_read.frames(archive, rows, kinds))
    with pytest.raises(HarnessError, match="record 1 has an invalid field"):
        list(_read.picked(archive, [{"time": float("inf")}], lambda review: (int(review["time"]),)))


def test_offline_every_data_set_says_where_to_put_its_file(web, home):
    for name in library.built_in():
        if name in ("ml-100k", "yelp"):
            continue
        with pytest.raises(HarnessError) as caught:
            open_dataset(name, home)
        first = next(iter(library.component(name).sources().values()))
        assert f"put it at {home / 'downloads' / first.file} and rerun" in str(caught.value)
        for other in library.component(name).sources().values():  # all at once: the machine with a net may be far
            assert str(home / "downloads" / other.file) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert ready(home) == []


def test_two_processes_build_a_data_set_once(web, home):
    def slowly(handler: Handler) -> None:
        body = web.bodies[handler.path]
        handler.head(200, Content_Length=str(len(body)))
        cutoff = len(body) // 2
        handler.wfile.write(body[:cutoff])
        web.over.wait(0.5)
        handler.wfile.write(body[cutoff:])

    serve_2014(web)
    web.moods = dict.fromkeys(web.bodies, slowly)
    code = "import sys; from pathlib import Path; from harness.data.reader import open_dataset; "
    code += "open_dataset('amazon2014-beauty', Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(home)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted("Cite:" in text for text in told) == [False, True]
    assert len(web.asked) == 2
    assert left(home / "data") == ["amazon2014-beauty", "locks"]


def test_leftovers_of_a_killed_process_are_removed(web, home):
    (home / "data" / ".amazon2014-beauty.killed" / "interactions.parts").mkdir(parents=True)
    (home / "data" / ".amazon2014-toys.alive").mkdir()
    serve_2014(web)
    frames("amazon2014-beauty", home)
    assert left(home / "data") == [".amazon2014-toys.alive", "amazon2014-beauty", "locks"]


# memory, and the real thing


def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    """1.6 million rows, 70 MB of text, from a .gz file."""
    block = "".join(
        f"A{k % 9973:05d}USERUSERUSER,B{k % 997:04d}ITEM,5.0,{1_628_643_414_000 + k}\n" for k in range(80_000)
    )
    body = gzip.compress(block.encode(), 1)
    (tmp_path / "r.csv.gz").write_bytes(body * 20)
    code = """
import resource, sys
from pathlib import Path
import polars as pl
from harness.data import archives; from harness.data import fetch
from harness.data.datasets import _read
folder, before = Path(sys.argv[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with archives.gunzipped(folder / "r.csv.gz") as stream:
    columns = ["user_id", "item_id", "rating", "timestamp"]
    found = _read.csv_frames(folder / "r.csv.gz", stream, columns, header=False)
    _read.write_events(folder / "e.parquet", folder, found, ["user_id", "item_id", pl.col("timestamp").cast(pl.Int64)])
print(pl.scan_parquet(folder / "e.parquet").select(pl.len()).collect().item())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    environment = {**os.environ, "POLARS_MAX_THREADS": "2"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 1_600_000
    assert megabytes < 200
    assert sorted(file.name for file in tmp_path.iterdir()) == ["e.parquet", "r.csv.gz"]


def test_parts_are_joined_to_the_same_bytes_wherever_they_are_cut(tmp_path, monkeypatch):
    rows = [(f"u{k}", f"i{k % 7}", k, 1.0) for k in range(1000)]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    bodies = set()
    for size in (1000, 130, 7):
        monkeypatch.setattr(_read, "EVENT_ROWS", size)
        _read.write_events(tmp_path / "e.parquet", tmp_path, _read.frames(tmp_path, rows, schema), [pl.all()])
        assert pl.read_parquet(tmp_path / "e.parquet").rows() == rows
        bodies.add((tmp_path / "e.parquet").read_bytes())
    assert len(bodies) == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the checkout")
def test_the_real_movies_of_movielens_1m_are_read_from_an_archive_of_the_real_format(web, home, monkeypatch):
    events = pl.read_parquet(SHARED / "ml-1m" / "interactions.parquet").head(20_000)
    items = pl.read_parquet(SHARED / "ml-1m" / "items.parquet")
    ratings = "".join(f"{u}::{i}::5::{t}\n" for u, i, t in events.select("user_id", "item_id", "timestamp").rows())
    movies = "".join(f"{r['item_id']}::{r['title']} ({r['year']})::Drama\n" for r in items.to_dicts())
    body = ml_zip("1m", ratings, movies.encode("latin-1", "xmlcharrefreplace"))  # as there
    monkeypatch.setitem(ml.SHA256, "1m", serve(web, ml.URL.format("1m"), body))
    found, movies_by_id = frames("ml-1m", home)
    assert [row[:3] for row in found] == events.select("user_id", "item_id", "timestamp").rows()
    titles = dict(zip(items["item_id"], items["title"], strict=True))
    assert {item: titles[item] for item in movies_by_id} == {i: m["title"] for i, m in movies_by_id.items()}


def test_the_command_line_lists_a_registered_folder_and_benches_it_by_name(home, dataset):
    register("shop", dataset, home)
    listed = json.loads(harness(home, "list", "--json").stdout)["datasets"]
    assert listed[0] == {"name": "shop", "summary": str(dataset), "ready": True, "folder": str(dataset)}
    words = ["plan", "--datasets", "all,!ml-100k", "--encoders", "noise", "--adapters", "mlp", "--kcore", "0", "--json"]
    planned = harness(home, *words)
    assert planned.returncode == 0, planned.stderr
    assert {row["dataset"] for row in json.loads(planned.stdout)["cells"]} == {"shop"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the checkout")
def test_files_of_the_real_format_give_the_published_counts_of_amazon_2014_toys(web, home):
    """The real events and titles, written as the host's two files are: 5-core with titles, as published."""
    folder = SHARED / "amazon2014-toys"
    events = pl.read_parquet(folder / "interactions_5core.parquet").sort("item_id", maintain_order=True)
    line = '{{"reviewerID": "{}", "asin": "{}", "overall": 5.0, "unixReviewTime": {}}}\n'
    rows = events.select("user_id", "item_id", pl.col("timestamp").fill_null(0)).rows()  # the copy lost some times
    base = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
    reviews = gzip.compress("".join(line.format(*row) for row in rows).encode(), 1)
    serve(web, f"{base}/reviews_Toys_and_Games_5.json.gz", reviews)
    items = pl.read_parquet(folder / "items.parquet").select("item_id", "title", "categories").to_dicts()
    products = [
        {"asin": item["item_id"], "categories": [item["categories"]]}
        | ({"title": item["title"]} if item["title"] else {})
        for item in items
    ]
    serve(web, f"{base}/meta_Toys_and_Games.json.gz", literals(products))
    raw = open_dataset("amazon2014-toys", home)
    plain = prepare(raw, PrepSpec(), home).card
    assert [plain.users, plain.items, plain.events] == [19_412, 11_924, 167_597]
    titled = prepare(raw, PrepSpec(require_text=True), home).card
    assert [titled.users, titled.items, titled.events] == [19_124, 11_758, 165_247]
