"""Data files as other programs write them: read like the plain CSV of the same rows and reported, or refused in one
line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from command_line import harness
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checks import linter
from harness.data import cards, data_files, delimited, library, reader
from harness.data.preparation import prepare
from harness.data.reader import open_dataset, raw_hash
from harness.search import spaces
from harness.types import HarnessError, PrepSpec, digest

EVENTS = [("u", "a", 1), ("u", "b", 2), ("v", "a", 3), ("v", "b", 4)]
ITEMS = [("a", "Anvil"), ("b", "Bell")]
EVENTS_CSV = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,a,3\nv,b,4\n"
ITEMS_CSV = "item_id,title\na,Anvil\nb,Bell\n"
Written = Mapping[str, bytes | str]


def write(folder: Path, written: Written) -> Path:
    """Write files by their path in the folder; a data file that is missing is written as plain CSV."""
    plain: dict[str, bytes | str] = {"interactions.csv": EVENTS_CSV, "items.csv": ITEMS_CSV}
    for stem, other in (("interactions", ".inter"), ("items", ".item")):
        if any(name.lower().startswith(stem) or (name.endswith(other) and name[0] != ".") for name in written):
            del plain[f"{stem}.csv"]
    for name, content in (plain | dict(written)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, home: Path) -> tuple[list[tuple], list[tuple], tuple[str, ...]]:
    """Return events, items with their texts, and the notes."""
    found = open_dataset(str(folder), home)
    items = reader.read_items(found.items, found.text)
    return reader.read_events(found.interactions).rows(), items.select("item_id", "text").rows(), found.notes


def refusal(folder: Path, home: Path) -> str:
    """Return the error that refuses the folder, after checking that `harness check` reports the same fault."""
    with pytest.raises(HarnessError) as caught:
        prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home)
    line = str(caught.value)
    assert "\n" not in line
    assert "\0" not in line
    with suppress(HarnessError):  # opening it raised this line already
        findings = linter.check(open_dataset(str(folder), home))
        errors = [finding.says.partition(": ")[2] for finding in findings if finding.level == "error"]
        assert any(says and says.removeprefix("it ") in line for says in errors), (line, errors)
    return line


def separated(text: str, separator: str) -> str:
    return text.replace(",", separator)


def parquet(rows: list[tuple], names: tuple[str, ...] = ("user_id", "item_id", "timestamp")) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(rows, names, orient="row").write_parquet(buffer)
    return buffer.getvalue()


TAB = (separated(EVENTS_CSV, "\t"), separated(ITEMS_CSV, "\t"))
FIRST, SECOND = parquet(EVENTS[:2]), parquet(EVENTS[2:])
NO_ROWS = parquet([], ("user_id", "item_id", "timestamp"))

# what is written -> words of the notes; nothing to report where the name says it all
SAME_ROWS: dict[str, tuple[Written, list[str]]] = {
    "tabs": (
        {"interactions.csv": TAB[0], "items.csv": TAB[1]},
        ["interactions.csv is read as tab-separated", "items.csv is read as tab-separated"],
    ),
    "tabs by name": ({"interactions.tsv": TAB[0], "items.tsv": TAB[1]}, []),
    "commas by another name": ({"interactions.tsv": EVENTS_CSV}, ["interactions.tsv is read as comma-separated"]),
    "semicolons": ({"interactions.csv": separated(EVENTS_CSV, ";")}, ["semicolon-separated"]),
    "pipes": ({"interactions.csv": separated(EVENTS_CSV, "|")}, ["pipe-separated"]),
    "Excel's sep line": ({"interactions.csv": "sep=;\r\n" + separated(EVENTS_CSV, ";")}, ["semicolon-separated"]),
    "quoted names": ({"items.csv": '"item_id"\t"title"\n"a"\t"Anvil"\n"b"\t"Bell"\n'}, ["tab-separated"]),
    "RecBole in a csv": (
        {"interactions.csv": TAB[0].replace("d\t", "d:token\t").replace("timestamp", "timestamp:float")},
        ["tab-separated text with RecBole types in the header"],
    ),
    "RecBole's files": (
        {
            "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "u\ta\t3\t1\nu\tb\t4.5\t2\nv\ta\t1\t3\nv\tb\t1\t4\n",
            "ml-100k.item": "item_id:token\tprice:float\tname:token_seq\tvector:float_seq\n"
            "a\t1.5\tAnvil\t.1 .2\nb\t2\tBell\t.3 .4\n",
            "ml-100k.user": "user_id:token\tage:token\nu\t3\n",
            "ml-1m.item": "item_id:token\n",
        },
        ["ml-100k.inter is read with RecBole types", "ml-100k.item is read with RecBole types"],
    ),
    "RecBole's types between commas, a hidden file beside": (
        {"interactions.csv": EVENTS_CSV.replace("_id", "_id:token").replace("amp", "amp:float"), "._a.inter": b"\0"},
        ["interactions.csv is read with RecBole types"],
    ),
    "UTF-16": ({"interactions.csv": EVENTS_CSV.encode("utf-16")}, ["UTF-16"]),
    "UTF-16, big-endian": ({"items.csv": b"\xfe\xff" + ITEMS_CSV.encode("utf-16-be")}, ["UTF-16"]),
    "UTF-16 without a mark": ({"interactions.csv": EVENTS_CSV.encode("utf-16-le")}, ["UTF-16"]),
    "UTF-16, big-endian, without a mark": ({"items.csv": ITEMS_CSV.encode("utf-16-be")}, ["UTF-16"]),
    "UTF-16 with tabs and CRLF, Excel's Unicode text": (
        {"interactions.csv": TAB[0].replace("\n", "\r\n").encode("utf-16")},
        ["tab-separated text with UTF-16"],
    ),
    "UTF-32": ({"items.csv": ITEMS_CSV.encode("utf-32")}, ["UTF-32"]),
    "a mark before a quoted name and tabs": (
        {"interactions.csv": b"\xef\xbb\xbf" + TAB[0].replace("user_id", '"user_id"').encode()},
        ["tab-separated"],
    ),
    "carriage returns": ({"interactions.csv": EVENTS_CSV.replace("\n", "\r")}, ["carriage returns"]),
    "CR CR LF": ({"items.csv": ITEMS_CSV.replace("\n", "\r\r\n")}, ["carriage returns"]),
    "CRLF, then LF": ({"interactions.csv": EVENTS_CSV.replace("\n", "\r\n", 2)}, []),
    "blank lines": (
        {
            "interactions.csv": "\n" + EVENTS_CSV.replace("u,b,2", "\n  \n,,\nu,b,2\n\t") + "\n\n  ",
            "items.csv": ITEMS_CSV.replace("\n", "\r\n\r\n"),
        },
        [],
    ),
    "blanks before the header": ({"interactions.csv": "  \n" + EVENTS_CSV}, []),
    "gzip": (
        {"interactions.csv.gz": gzip.compress(EVENTS_CSV.encode()), "items.tsv.gz": gzip.compress(TAB[1].encode())},
        [],
    ),
    "gzip in two members": (
        {"interactions.csv.gz": gzip.compress(EVENTS_CSV[:32].encode()) + gzip.compress(EVENTS_CSV[32:].encode())},
        [],
    ),
    "gzip of UTF-16": (
        {"items.csv.gz": gzip.compress(ITEMS_CSV.encode("utf-16"))},
        ["items.csv.gz is read with UTF-16"],
    ),
    "gzip by name only": ({"interactions.csv.gz": EVENTS_CSV}, ["interactions.csv.gz is read with no compression"]),
    "gzip without its name": ({"items.csv": gzip.compress(ITEMS_CSV.encode())}, ["gzip compression"]),
    "upper case": ({"Interactions.CSV": EVENTS_CSV, "ITEMS.csv": ITEMS_CSV}, []),
    "Spark's folder": (
        {
            "interactions.parquet/part-00000-a.c000.snappy.parquet": FIRST,
            "interactions.parquet/part-00001-a.c000.snappy.parquet": SECOND,
            "interactions.parquet/.part-00000-a.c000.snappy.parquet.crc": b"crc",
            "interactions.parquet/_SUCCESS": b"",
        },
        ["interactions.parquet is read as 2 parts"],
    ),
    "a folder of one part": (
        {"items.parquet/part-0.parquet": parquet(ITEMS, ("item_id", "title")), "items.parquet/_SUCCESS": b""},
        [],
    ),
    "numbered parts": (
        {"interactions.parquet/part.10.parquet": SECOND, "interactions.parquet/part.9.parquet": FIRST},
        ["2 parts ordered by name"],
    ),
    "a part without rows": (
        {
            "interactions.parquet/part-0.parquet": NO_ROWS,
            "interactions.parquet/part-1.parquet": FIRST,
            "interactions.parquet/part-2.parquet": SECOND,
        },
        ["3 parts"],
    ),
    "parts with columns in another order": (
        {
            "interactions.parquet/part-0.parquet": FIRST,
            "interactions.parquet/part-1.parquet": parquet(
                [(3, "v", "a"), (4, "v", "b")], ("timestamp", "user_id", "item_id")
            ),
        },
        ["2 parts"],
    ),
    "partitions": (
        {"interactions.parquet/user_id=u/p.parquet": parquet([("a", 1), ("b", 2)], ("item_id", "timestamp"))}
        | {"interactions.parquet/user_id=v/p.parquet": parquet([("a", 3), ("b", 4)], ("item_id", "timestamp"))},
        ["2 parts"],
    ),
    "folders of csv parts, the first without a byte": (
        {
            "interactions.csv/part-00000.csv": "",
            "interactions.csv/part-00001.csv": "user_id,item_id,timestamp\nu,a,1\nu,b,2\n",
            "interactions.csv/part-00002.csv": "user_id,item_id,timestamp\nv,a,3\nv,b,4\n",
            "interactions.csv/_SUCCESS": "",
            "items.csv/part-00000.csv.gz": gzip.compress(b""),
            "items.csv/part-00001.csv.gz": gzip.compress(ITEMS_CSV.encode()),
        },
        ["interactions.csv is read as 3 parts", "items.csv is read as 2 parts"],
    ),
    "a folder without suffix": ({"interactions/part-0.parquet": parquet(EVENTS)}, []),
    "a folder of pictures beside": ({"items.csv": ITEMS_CSV, "items/a.jpg": b"x", "items/_old.csv": ITEMS_CSV}, []),
}


@pytest.mark.parametrize("case", SAME_ROWS)
def test_a_file_is_read_like_the_plain_csv_of_its_rows_and_the_notes_report_how(tmp_path, home, case):
    written, words = SAME_ROWS[case]
    events, items, notes = read(write(tmp_path / "made", written), home)
    assert (events, items) == (EVENTS, ITEMS)
    for note, word in zip(notes, words, strict=True):
        assert word in note


@pytest.mark.parametrize("case", ["tabs", "RecBole's files", "UTF-16", "Spark's folder"])
def test_the_file_format_is_reported_on_stderr_on_the_card_and_by_check(tmp_path, home, capsys, case):
    written, words = SAME_ROWS[case]
    found = open_dataset(str(write(tmp_path / "made", written)), home)
    prepare(found, PrepSpec(kcore=0), home)
    told = capsys.readouterr().err
    card = " ".join(cards.text(prepare(found, PrepSpec(kcore=0), home).card).split())
    assert not capsys.readouterr().err
    findings = [finding for finding in linter.check(found) if finding.name.startswith("format of ")]
    assert len(findings) == len(words)
    for word, finding in zip(words, findings, strict=True):
        assert word in told
        assert word in card
        assert word in finding.says
        assert finding.level == "info"


TITLES = [  # items file -> titles: separators, quotes and backslashes inside of values
    ("item_id\ttitle\na\tOne, two; three | four\nb\tBell\n", ["One, two; three | four", "Bell"]),
    ("item_id,title\na,One\ttwo\nb,Bell;x|y\n", ["One\ttwo", "Bell;x|y"]),
    ('item_id;title\na;"Semi; colon"\nb;1,5\n', ["Semi; colon", "1,5"]),
    ('item_id,title\na,"One\n\n two"\nb,Bell\n', ["One\n\n two", "Bell"]),
    ('item_id,title\ra,"One\rtwo"\rb,Bell', ["One\rtwo", "Bell"]),
    # Spark: backslashes before quotes and before backslashes of a quoted value, as such elsewhere
    ('item_id,title\na,"a \\"quoted\\" title, x"\nb,C:\\dir\n', ['a "quoted" title, x', "C:\\dir"]),
    ('item_id,title\na,"TV 27\\""\nb,"C:\\\\dir \\"x\\""\n', ['TV 27"', 'C:\\dir "x"']),
    ('item_id,title\na,"TV 27\\""\nb,Bell\n', ['TV 27"', "Bell"]),
    ('item_id\ttitle\na\t"\\"A\\" b"\nb\tBell\n', ['"A" b', "Bell"]),
    ('item_id,title\ra,"TV \\"27\\"\rx"\rb,Bell\r', ['TV "27"\rx', "Bell"]),
    # doubled quotes with backslashes that mean nothing
    ('item_id,title\na,"C:\\"\nb,"he said ""\\x"" ok"\n', ["C:\\", 'he said "\\x" ok']),
    ('item_id,title\na,"{""k"": ""a \\""b\\"" c""}"\nb,"x"\n', ['{"k": "a \\"b\\" c"}', "x"]),
    ('item_id,title\na,say \\"x\\" y\nb,"C:\\"\n', ['say \\"x\\" y', "C:\\"]),
    # tabs without any quoting, as databases write them
    ('item_id\ttitle\na\t"Fever" pitch\nb\t"Bell\n', ['"Fever" pitch', '"Bell']),
    ('item_id\ttitle\na\t"Fever ""x"""\nb\tsay "x"\n', ['Fever "x"', 'say "x"']),
    # quotes that match by chance over several rows
    ('item_id\ttitle\na\t"Heroes\nb\tLow\nc\tBlue 12"\n', ['"Heroes', "Low", 'Blue 12"']),
    ('item_id\ttitle\na\t"one\nand two"\nb\tBell\n', ["one\nand two", "Bell"]),
    # quotes within values: an odd number in a row is no quoting, two in a row do no harm
    ('item_id\ttitle\na\t12" flute\nb\tBell\n', ['12" flute', "Bell"]),
    ('item_id\ttitle\na\t12" flute\nb\tBell\nc\tpipe of 5"\n', ['12" flute', "Bell", 'pipe of 5"']),
    ('item_id,title\na,a 5" or 6" pipe\nb,the "bell"\n', ['a 5" or 6" pipe', 'the "bell"']),
    ('item_id,title\na,Bell\nb,5" pipe', ["Bell", '5" pipe']),
]


@pytest.mark.parametrize(("text", "titles"), TITLES)
def test_a_title_comes_out_as_it_was_written(tmp_path, text, titles):
    path = tmp_path / "items.csv"
    path.write_bytes(text.encode())
    assert reader.read_items(path, "{title}")["text"].to_list() == [title.strip() for title in titles]


def test_quotes_in_a_column_that_is_not_read_join_no_rows_between_tabs(tmp_path, home):
    lines = [f'{user}\t{item}\t{time}\t{time}" pipe\n' for user, item, time in EVENTS]
    folder = write(tmp_path / "made", {"interactions.tsv": "user_id\titem_id\ttimestamp\tnote\n" + "".join(lines)})
    events, _, notes = read(folder, home)
    assert events == EVENTS
    assert notes == ("interactions.tsv is read with quotes as plain characters",)


def test_a_column_that_occurs_twice_is_no_fault_if_it_is_not_read(tmp_path, home):
    items = "item_id,note,title,note\na,x,Anvil,y\nb,x,Bell,y\n"
    folder = write(tmp_path / "made", {"items.csv": items, "interactions.csv": EVENTS_CSV.replace("\n", ",\n")})
    assert read(folder, home) == (EVENTS, ITEMS, ())


def test_quotes_that_may_join_rows_are_noted(tmp_path, home):
    """In a file with commas, such a value may also be meant: a description with a comma in each line."""
    for text, noted in (('a,"Heroes\nb,Low\nc,Blue 12"\nd,x\n', True), ('a,"one\nand two"\nd,"x, y"\n', False)):
        folder = write(tmp_path / str(noted), {"items.csv": f"item_id,title\n{text}"})
        found = open_dataset(str(folder), home)
        assert ("may join rows by mistake" in " ".join(found.notes)) is noted


@pytest.mark.parametrize(
    ("name", "text", "joined"),
    [
        ("items.csv", 'item_id,title,n\na,"Anvil,1\nb,Bell,2\nc,Clock,3"\nd,Drum,4\n', ["b", "c"]),
        ("items.csv", 'item_id,title,n\na,"Anvil,1\nb,Bell, small,2\nc,Clock,3"\nd,Drum,4\n', ["c"]),
        (
            "interactions.csv",
            'user_id,item_id,timestamp,q\nu,a,1,"x\nv,a,2,\nv,b,3,y"\nu,b,2,\nv,c,4,\nu,c,5,\n',
            ["v"] * 2,
        ),
        ("items.csv", 'item_id,title,n\na,"Anvil\nof iron, black, large",1\nb,Bell,2\nc,Clock,3\nd,Drum,4\n', []),
        ("items.csv", 'item_id\ttitle\na\t"Anvil\nb\tBell"\nc\tClock\nd\tDrum\n', []),
    ],
    ids=["items", "a comma more", "events", "a description of several lines", "tabs, where they are not joined"],
)
def test_rows_that_a_quote_joins_are_a_warning_of_check_and_card(tmp_path, home, name, text, joined):
    """Each row would begin with a known id; a value of several lines with as many commas as a row does not."""
    rows = [(user, item, time) for user in "uv" for time, item in enumerate("abcd")]
    lines = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    written = {"interactions.csv": f"user_id,item_id,timestamp\n{lines}", "items.csv": "item_id,title\na,A\nb,B\nc,C\n"}
    folder = write(tmp_path / "made", written | {name: text})
    for _ in range(2):  # the second time, the preparation is cached
        card = prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home).card
        assert [f"({len(joined)} of " in line for line in card.warnings if "inside a quoted value" in line] == [
            True
        ] * bool(joined)
    found = [f for f in linter.examine(str(folder), home, "", PrepSpec(kcore=0)).findings if "joined" in f.name]
    assert [(f.name, f.level, f.count, list(f.examples)) for f in found] == [
        (f"joined lines in {name}", "warning", len(joined), joined)
    ] * bool(joined)


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("items.csv", "item_id\na\tb\nc;d\n", ["a\tb", "c;d"]),
        ("items.tsv", "item_id\na,b\nc\n", ["a,b", "c"]),
        ("a.item", "item_id:token\na,b\n\n  \nc\n", ["a,b", "c"]),
    ],
)
def test_one_column_is_read_with_the_separator_of_its_suffix(tmp_path, home, name, text, ids):
    found = open_dataset(str(write(tmp_path / "made", {name: text})), home)
    items = reader.read_items(found.items, found.text)
    assert items["item_id"].to_list() == ids
    assert items["source_row"].to_list() == [0, 1]
    assert "separated" not in " ".join(found.notes)


def spark_line(values: list[str]) -> str:
    """Return a line as Spark's CSV writer writes it: values with a separator, quote or line end are quoted."""

    def field(value: str) -> str:
        if not value or any(char in value for char in ',"\n\r'):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return value

    return ",".join(map(field, values)) + "\n"


def doubled_line(values: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


@pytest.mark.parametrize("line", [spark_line, doubled_line])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab\\", \n'), min_size=1, max_size=8), min_size=1, max_size=5))
def test_either_way_to_quote_is_recognised_in_a_whole_file(tmp_path_factory, line, titles):
    """The first title has a value that only one of the two ways of quoting can write."""
    titles = ['the "first", here', *titles]
    path = tmp_path_factory.mktemp("quotes") / "items.csv"
    rows = [["item_id", "title"], *([f"i{place}", title] for place, title in enumerate(titles))]
    path.write_bytes("".join(map(line, rows)).encode())
    assert reader.read_items(path, "{title}")["text"].to_list() == [title.strip() or None for title in titles]


def test_decimal_commas_are_read_between_semicolons_and_ambiguous_ones_are_refused(tmp_path, home):
    text = "user_id;item_id;timestamp\nu;a;1,5\nu;b;1505111364,125\nv;a;0,125\nv;b;4\n"
    events, _, _ = read(write(tmp_path / "made", {"interactions.csv": text}), home)
    assert [event[2] for event in events] == [1.5, 1505111364.125, 0.125, 4.0]
    assert not [f for f in linter.check(open_dataset(str(tmp_path / "made"), home)) if f.name == "missing timestamp"]
    bad = write(tmp_path / "bad", {"interactions.csv": text.replace("1,5", "1,505", 1)})
    with pytest.raises(HarnessError, match="a row has '1,505'"):
        prepare(open_dataset(str(bad), home), PrepSpec(kcore=0), home)


def test_ratings_with_decimal_commas_can_be_filtered(tmp_path, home):
    text = "user_id;item_id;timestamp;rating\nu;a;1;4,5\nu;b;2;2,5\nv;a;3;5\nv;b;4;4,0\n"
    folder = write(tmp_path / "made", {"interactions.csv": text})
    assert reader.read_events(folder / "interactions.csv", ("rating",))["rating"].to_list() == [4.5, 2.5, 5.0, 4.0]


REFUSED: dict[str, tuple[Written, list[str]]] = {
    "both formats": (
        {"interactions.parquet": parquet(EVENTS), "interactions.csv": EVENTS_CSV},
        ["has interactions.csv and interactions.parquet, but only one"],
    ),
    "a file and its gzip": (
        {"items.csv": ITEMS_CSV, "items.csv.gz": gzip.compress(ITEMS_CSV.encode())},
        ["has items.csv and items.csv.gz"],
    ),
    "csv and RecBole": ({"interactions.csv": EVENTS_CSV, "a.inter": TAB[0]}, ["interactions.csv and a.inter"]),
    "RecBole's splits": (
        {"a.train.inter": TAB[0], "a.valid.inter": TAB[0], "a.test.inter": TAB[0]},
        ["a.test.inter, a.train.inter and a.valid.inter"],
    ),
    "a file and a folder of parts": (
        {"interactions.csv": EVENTS_CSV, "interactions/part-0.csv": EVENTS_CSV},
        ["has interactions.csv and interactions, but only one"],
    ),
    "a file and a folder of partitions": (
        {"items.csv": ITEMS_CSV, "items/kind=a/part-0.parquet": parquet(ITEMS, ("item_id", "title"))},
        ["has items.csv and items, but only one"],
    ),
    "two cases of one name": ({"Items.csv": ITEMS_CSV, "items.csv": ITEMS_CSV}, ["Items.csv and items.csv"]),
    "a format that is not read": ({"interactions.jsonl": "{}"}, ["There is interactions.jsonl, which cannot be read"]),
    "a name that is nearly right": ({"interactions_.csv": EVENTS_CSV}, ["Did you mean 'interactions_.csv'?"]),
    "latin-1": (
        {"items.csv": ITEMS_CSV.replace("Bell", "Café").encode("latin-1")},
        ["items.csv: line 3 is not UTF-8: byte E9, 'é' in cp1252", "iconv"],
    ),
    "latin-1 in the header": ({"items.csv": "item_id,größe\na,1\n".encode("cp1252")}, ["line 1", "byte F6"]),
    "cp1252 in gzip": (
        {"items.csv.gz": gzip.compress(ITEMS_CSV.replace("Bell", "Bell’s").encode("cp1252"))},
        ["items.csv.gz: line 3", "byte 92"],
    ),
    "half a character of UTF-16": ({"items.csv": ITEMS_CSV.encode("utf-16")[:-1]}, ["not UTF-16 text"]),
    "no text": ({"items.csv": bytes(range(256)) * 4}, ["items.csv is not a text file", "NUL"]),
    "too many values": (
        {"interactions.csv": EVENTS_CSV.replace("v,a,3", "v,a,3,9")},
        ["line 4 has 4 values, but the header has 3 names"],
    ),
    "too many values behind a quoted line end": (
        {"items.csv": 'item_id,title\na,"An\nvil"\nb,Bell, small\n'},
        ["line 4 has 3 values"],
    ),
    "a quote within": (
        {"items.csv": 'item_id,title\na,"Bell"\nb,5" pipe\n'},
        ["line 3 has a quote inside an unquoted value"],
    ),
    "quotes within two values of a column that is not read": (
        {"items.csv": 'item_id,title,note\na,Anvil,5" pipe\nc,Clock,\nd,Drum,6" pipe\nb,Bell,\n'},
        ["items.csv: line 2 has a quote inside an unquoted value"],
    ),
    "quotes within two values between semicolons, beside quoted values": (
        {"interactions.csv": 'user_id;item_id;timestamp;q\nu;a;1;"a;b"\nu;b;2;5"\nv;a;3;"x ""y"""\nv;b;4;5"\n'},
        ["interactions.csv: line 3 has a quote inside an unquoted value"],
    ),
    **{
        f"two columns {name} in {file}": (
            {file: separated(text, separator).replace("x", name + kind)},
            [f"{file}: the column {name} occurs more than once in the header"],
        )
        for name, file, separator, kind, text in [
            ("timestamp", "interactions.csv", ",", "", "user_id,item_id,x,x\nu,a,1,9\nu,b,2,8\nv,a,3,7\nv,b,4,6\n"),
            ("user_id", "interactions.csv", ",", "", "x,item_id,timestamp,x\nu,a,1,w\nu,b,2,w\nv,a,3,u\nv,b,4,u\n"),
            ("order", "interactions.tsv", "\t", "", "user_id,item_id,timestamp,x,x\nu,a,1,1,2\nv,b,1,1,2\n"),
            ("item_id", "interactions.csv", ",", "", "user_id,x,x,timestamp\nu,a,b,1\nv,b,a,1\n"),
            ("title", "items.csv", ",", "", "item_id,x,x\na,Anvil,A\nb,Bell,B\n"),
            ("item_id", "made.item", "\t", ":token", "x,x,title:token_seq\na,b,Anvil\nb,a,Bell\n"),
        ]
    },
    "a quote that does not close": ({"items.csv": 'item_id,title\na,"Anvil\nb,Bell\n'}, ["line 2 opens a quote that"]),
    "a bare carriage return": (
        {"interactions.csv": EVENTS_CSV.replace("u,b,2\n", "u,b,2\r")},
        ["line 3 contains a bare carriage return"],
    ),
    "gzip that is cut off": (
        {"interactions.csv.gz": gzip.compress(EVENTS_CSV.encode() * 99)[:-20]},
        ["interactions.csv.gz cannot be decompressed: it is truncated"],
    ),
    "gzip that is damaged": (
        {"interactions.csv.gz": gzip.compress(EVENTS_CSV.encode() * 99)[:20] + b"\xff" * 40},
        ["cannot be decompressed"],
    ),
    "gzip of Parquet": ({"interactions.csv.gz": gzip.compress(parquet(EVENTS))}, ["contains Parquet data"]),
    "gzip in gzip": ({"items.csv.gz": gzip.compress(gzip.compress(b"item_id\na\n"))}, ["contains gzip data"]),
    "Excel": ({"items.csv": b"PK\x03\x04 and so on"}, ["contains zip or Excel data"]),
    "a folder without parts": (
        {"interactions.parquet/_SUCCESS": b""},
        ["interactions.parquet is a folder without parts"],
    ),
    "an unfinished job": (
        {"interactions.parquet/_temporary/0/part-0.parquet": FIRST, "interactions.parquet/part-0.parquet": FIRST},
        ["interactions.parquet contains _temporary"],
    ),
    "a Delta table": (
        {"interactions.parquet/_delta_log/0.json": "{}", "interactions.parquet/part-0.parquet": FIRST},
        ["interactions.parquet contains _delta_log: a Delta table"],
    ),
    "parts without rows": ({"interactions.parquet/part-0.parquet": NO_ROWS}, ["interactions.parquet is empty"]),
    "a part without a byte": (
        {"interactions.parquet/part-0.parquet": FIRST, "interactions.parquet/part-1.parquet": b""},
        ["part-1.parquet", "cannot be read as parquet"],
    ),
    "a part of another type": (
        {"interactions.parquet/p0.parquet": FIRST, "interactions.parquet/p1.parquet": parquet([(1, "a", 3)])},
        ["user_id differs between p0.parquet (String) and p1.parquet (Int64)"],
    ),
    "a part that lacks a column": (
        {
            "interactions.parquet/p0.parquet": FIRST,
            "interactions.parquet/p1.parquet": parquet([("v", "a")], ("user_id", "item_id")),
        },
        ["timestamp differs between p0.parquet (Int64) and p1.parquet (absent)"],
    ),
    "a stranger among the parts": (
        {"interactions.parquet/p0.parquet": FIRST, "interactions.parquet/notes.txt": "x"},
        ["notes.txt is not a part"],
    ),
    "a folder among the parts": ({"interactions.parquet/old/p0.parquet": FIRST}, ["old is not a partition folder"]),
    "latin-1 in a part": (
        {"items.csv/p0.csv": ITEMS_CSV, "items.csv/p1.csv": b"item_id,title\nc,\xe9\n"},
        ["items.csv: p1.csv: line 2 is not UTF-8"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unreadable_file_is_a_one_line_error_with_file_line_and_fault(tmp_path, home, case):
    written, words = REFUSED[case]
    folder = write(tmp_path / "made", written)
    line = refusal(folder, home)
    assert str(folder) in line
    for word in words:
        assert word in line


UNREADABLE = [
    *("latin-1", "a quote within", "gzip that is cut off", "gzip of Parquet", "Excel", "a Delta table", "no text"),
    *("an unfinished job", "a part without a byte", "a stranger among the parts", "half a character of UTF-16"),
]


@pytest.mark.parametrize("case", [*UNREADABLE, "damaged Parquet", "damaged Parquet and its text"])
def test_check_reports_an_unreadable_file_and_checks_the_other(tmp_path, home, case):
    written = REFUSED[case][0] if case in REFUSED else {"items.parquet": b"PAR1xxxx"}
    options = ["--text", "{title}"] if "text" in case else []
    folder = write(tmp_path / "made", dict(written) | ({"dataset.toml": 'text = "{title}"'} if options else {}))
    done = harness(home, "check", str(folder), "--json", "--kcore", "0", *options)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    bad = "items" if any(name.startswith("items") for name in written) else "interactions"
    errors = {finding["name"]: finding["says"] for finding in report["findings"] if finding["level"] == "error"}
    assert list(errors) == [bad]
    assert errors[bad].startswith(bad)
    assert ("file" in report["counts"]) == (bad == "items")
    assert "no text" not in [finding["name"] for finding in report["findings"]]


def test_a_hash_depends_on_the_parts_in_order_and_the_quoting_but_not_on_the_path(tmp_path, home):
    def hash_of(name: str, written: Written) -> str:
        return raw_hash(open_dataset(str(write(tmp_path / name, written)), home))

    whole = hash_of("whole", {"interactions.parquet/a1.parquet": FIRST, "interactions.parquet/a2.parquet": SECOND})
    same = {"interactions.parquet/b-1.parquet": FIRST, "interactions.parquet/b-2.parquet": SECOND}
    assert hash_of("same", same | {"interactions.parquet/_SUCCESS": b""}) == whole
    swapped = hash_of("swapped", {"interactions.parquet/a1.parquet": SECOND, "interactions.parquet/a2.parquet": FIRST})
    assert len({whole, swapped, hash_of("one", {"interactions.parquet": parquet(EVENTS)})}) == 3
    before = digest({"text": "{title}", "interactions": sha256(EVENTS_CSV), "items": sha256(TAB[1])})
    assert hash_of("tabs", {"items.csv": TAB[1]}) == before
    spark = 'item_id,title\na,"an \\"anvil\\""\nb,Bell\n'
    before = digest({"text": "{title}", "interactions": sha256(EVENTS_CSV), "items": sha256(spark)})
    assert hash_of("spark", {"items.csv": spark}) != before  # earlier versions read these titles otherwise


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_gaps_in_the_order_do_not_matter_if_every_event_has_a_time(tmp_path, home):
    """Events with equal times are sorted by order, then those without an order in file order."""
    rows = [("u", "a", 5, ""), ("u", "b", 5, 7), ("u", "c", 5, ""), ("u", "d", 5, 3), ("u", "e", 4, 9)]
    rows += [("v", item, time, "") for time, item in enumerate("ab")]
    lines = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    items = "item_id,title\n" + "".join(f"{item},T{item}\n" for item in "abcde")
    folder = write(
        tmp_path / "made", {"interactions.csv": "user_id,item_id,timestamp,order\n" + lines, "items.csv": items}
    )
    prepared = prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home)
    ids = prepared.catalogue["item_id"].gather(prepared.items - 1).to_list()
    assert ids == ["e", "d", "b", "a", "c", "a", "b"]
    assert prepared.card.missing_orders == 4
    assert any("without an order: 4" in sentence for sentence in prepared.card.warnings)
    found = {finding.name: finding for finding in linter.check(open_dataset(str(folder), home), now=2e9)}
    assert found["missing order"].level == "info"
    assert "order against time" in found  # of e, which has order 9 and the earliest time
    assert {finding.name for finding in found.values() if finding.level == "error"} <= {"no 5-core"}


@pytest.mark.parametrize("order", [[None, 7.0, float("nan"), 3.0], [float("nan")] * 4, [None] * 4])
def test_gaps_in_the_order_of_a_parquet_may_be_nulls_or_nan(tmp_path, home, order):
    frame = pl.DataFrame({"user_id": ["u"] * 4, "item_id": list("abcd"), "timestamp": [5] * 4, "order": order})
    buffer = io.BytesIO()
    pl.concat([frame, frame.with_columns(user_id=pl.lit("v"))]).write_parquet(buffer)
    items = "item_id,title\n" + "".join(f"{item},T{item}\n" for item in "abcd")
    folder = write(tmp_path / "made", {"interactions.parquet": buffer.getvalue(), "items.csv": items})
    prepared = prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home)
    ids = "".join(prepared.catalogue["item_id"].gather(prepared.items[:4] - 1))
    assert ids == ("dbac" if 7.0 in order else "abcd")
    levels = {finding.name: finding.level for finding in linter.check(open_dataset(str(folder), home), now=2e9)}
    assert levels["missing order"] == "info"


def test_gaps_in_the_order_are_refused_if_a_time_is_missing_too(tmp_path, home):
    text = "user_id,item_id,timestamp,order\nu,a,1,\nu,b,,2\nv,a,3,3\n"
    folder = write(tmp_path / "made", {"interactions.csv": text})
    with pytest.raises(
        HarnessError, match="order is missing in 1 of 3 rows; that is allowed only if every event has a tim"
    ):
        prepare(open_dataset(str(folder), home), PrepSpec(kcore=0), home)
    levels = {finding.name: finding.level for finding in linter.check(open_dataset(str(folder), home), now=2e9)}
    assert levels["missing order"] == "error"


@pytest.mark.parametrize(
    "write_toml",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r").encode(),
    ],
    ids=["a mark", "UTF-16", "UTF-16 without a mark", "carriage returns"],
)
def test_toml_files_may_be_written_by_any_editor(tmp_path, home, write_toml: Callable[[str], bytes]):
    toml = 'name = "x"\ntext = "{title}, {item_id}"\n'
    folder = write(tmp_path / "made", {"Dataset.toml": write_toml(toml)})
    found = open_dataset(str(folder), home)
    assert (found.name, found.text) == ("x", "{title}, {item_id}")
    (home / "config.toml").write_bytes(write_toml(f'# mine\n[datasets]\nshop = "{folder}"\n'))
    assert open_dataset("shop", home).items == folder / "items.csv"
    reader.register("second", folder, home)
    assert {"shop", "second"} <= set(library.names(home))
    spaces_folder = tmp_path / "spaces"
    spaces_folder.mkdir()
    (spaces_folder / "text.toml").write_bytes(write_toml('fusion = "concat"\nout_std = 0.1\n'))
    assert spaces.read(spaces_folder / "text.toml", "text", spaces.TEXT_DEFAULTS)["out_std"] == 0.1


def test_toml_in_latin_1_is_refused_with_its_line(tmp_path, home):
    folder = write(tmp_path / "made", {"dataset.toml": 'name = "x"\ncitation = "Müller"\n'.encode("latin-1")})
    assert "dataset.toml: line 2 is not UTF-8: byte FC, 'ü'" in refusal(folder, home)
    path = tmp_path / "text.toml"
    path.write_bytes(b"fusion = '\xe9'")
    with pytest.raises(HarnessError, match="line 1 is not UTF-8"):
        spaces.read(path, "text", spaces.TEXT_DEFAULTS)


def test_a_nul_in_a_title_does_not_change_the_encoding(tmp_path, home):
    _, items, notes = read(write(tmp_path / "made", {"items.csv": ITEMS_CSV.replace("nv", "\0v")}), home)
    assert items == [("a", "A\0vil"), ("b", "Bell")]
    assert notes == ()


def test_a_file_name_with_brackets_is_not_a_pattern(tmp_path, home):
    events, items, _ = read(write(tmp_path / "run[1]*" / "shop", {}), home)
    assert (events, items) == (EVENTS, ITEMS)


def test_a_blank_licence_is_none(tmp_path, home):
    folder = write(tmp_path / "made", {"dataset.toml": 'name = "shop"\nlicence = " "\n'})
    done = harness(home, "show", str(folder), "--kcore", "0")
    assert done.returncode == 0, done.stderr
    assert "licence" not in done.stdout


@pytest.mark.parametrize("place", ["[2024]", "run*", "kcore=5"])
def test_homes_and_data_sets_may_lie_in_folders_of_any_name(tmp_path, dataset, place):
    """Polars takes such paths for patterns and columns. The second call reads what the first has cached."""
    folder = shutil.copytree(dataset, tmp_path / place / "shop")
    whole = pl.read_parquet(dataset / "interactions.parquet")
    (folder / "interactions.parquet").unlink()
    (folder / "interactions.parquet").mkdir()
    for number, part in enumerate((whole[:300], whole[300:])):
        part.write_parquet(folder / "interactions.parquet" / f"part-{number}.parquet")
    home = tmp_path / place / "home"
    for _ in range(2):
        done = harness(home, "prepare", str(folder), "--encoders", "noise", "--kcore", "0")
        assert done.returncode == 0, done.stderr
        assert "damaged" not in done.stderr
    assert harness(home, "check", str(folder)).returncode == 0
    assert not list(home.rglob("*.damaged*"))


def test_file_names_in_messages_keep_their_case(tmp_path, home):
    text = EVENTS_CSV.replace("v,a,3", "v,a,3,9")
    folder = write(tmp_path / "made", {"interactions.csv": text, "dataset.toml": 'name = "shop"\n'})
    printed = harness(home, "check", str(folder)).stdout
    assert " interactions.csv: line 4" in printed
    assert "Interactions.csv" not in printed


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["interactions.csv", "items.parquet/part-0.parquet"])
def test_a_file_without_read_permission_is_a_one_line_error(tmp_path, home, name):
    folder = write(tmp_path / "made", {name: EVENTS_CSV if name.endswith(".csv") else parquet(ITEMS, ("item_id", "t"))})
    (folder / name).chmod(0)
    assert "ermission denied" in refusal(folder, home)


def test_the_dialect_of_a_file_is_detected_once_until_it_changes(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(ITEMS_CSV)
    assert delimited.dialect(path) is delimited.dialect(path)
    path.write_text(separated(ITEMS_CSV, ";") + "c;Clock\n")
    assert delimited.dialect(path).separator == ";"


@pytest.mark.parametrize(
    ("name", "kind"), [("a.CSV", ".csv"), ("x.Tsv.gz", ".tsv"), ("b.parquet", ".parquet"), ("c.json", ""), ("gz", "")]
)
def test_the_suffix_decides_how_a_file_is_read(name, kind):
    assert data_files.kind(Path(name)) == kind
