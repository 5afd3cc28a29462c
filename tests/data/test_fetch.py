"""Downloads from a server on the loopback that misbehaves, wheels from an index there, and archives that attack."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import polars as pl
import pytest
from file_server import Handler, Server, left, make_tar, make_zip, sha

from harness.data import archives, fetch
from harness.data.datasets import ml_100k
from harness.data.reader import open_dataset, ready
from harness.types import HarnessError

BODY = bytes(range(256)) * 4000  # about 1 MB: several blocks


def test_a_download_is_checked_and_made_only_once(server, tmp_path):
    server.bodies["/a"] = BODY
    target = tmp_path / "new" / "a.bin"
    assert fetch.download([server.url("/a")], sha(BODY), target) == target
    assert target.read_bytes() == BODY
    fetch.download([server.url("/a")], sha(BODY), target)
    assert server.asked == [("/a", "")]
    assert left(target.parent) == ["a.bin"]


def test_the_next_mirror_is_asked_after_a_404_a_wrong_file_and_a_dead_host(server, tmp_path):
    server.bodies |= {"/wrong": BODY[::-1], "/right": BODY}
    urls = ["http://127.0.0.1:9/dead", *map(server.url, ["/gone", "/wrong", "/right"])]
    fetch.download(urls, sha(BODY), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert [path for path, _ in server.asked] == ["/gone", "/wrong", "/right"]


def test_when_every_source_fails_one_line_lists_them_and_says_where_to_put_the_file(server, tmp_path):
    server.bodies["/wrong"] = b"something else"
    urls = ["http://127.0.0.1:9/dead", server.url("/gone"), server.url("/wrong")]
    with pytest.raises(HarnessError) as caught:
        fetch.download(urls, sha(BODY), tmp_path / "a.bin")
    text = str(caught.value)
    assert "\n" not in text
    assert f"{urls[0]} (host unreachable)" in text
    assert f"{urls[1]} (HTTP 404)" in text
    assert f"{urls[2]} (wrong sha256)" in text
    assert f"put it at {tmp_path / 'a.bin'}" in text
    assert left(tmp_path) == []


def test_a_file_put_there_by_hand_is_taken_and_one_of_another_hash_is_named_and_replaced(server, tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(BODY)
    assert fetch.download([], sha(BODY), target) == target
    target.write_bytes(b"an older version")
    with pytest.raises(HarnessError, match="exists, but its sha256 differs"):
        fetch.download([], sha(BODY), target)
    server.bodies["/a"] = BODY
    fetch.download([server.url("/a")], sha(BODY), target)
    assert target.read_bytes() == BODY


def test_a_broken_transfer_goes_on_where_it_stopped(server, tmp_path):
    server.bodies["/a"], server.breaks["/a"] = BODY, [600_000]
    fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    (_, first), (_, second) = server.asked
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 600_000


def test_what_two_broken_tries_left_is_gone_on_with_in_the_next_run(server, tmp_path):
    server.bodies["/a"], server.breaks["/a"] = BODY, [600_000, 300_000]
    with pytest.raises(HarnessError, match="connection lost"):
        fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin")
    assert left(tmp_path) == ["a.bin.part"]
    had = (tmp_path / "a.bin.part").stat().st_size
    assert had > 600_000
    fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin")
    assert server.asked[-1] == ("/a", f"bytes={had}-")
    assert (tmp_path / "a.bin").read_bytes() == BODY


@pytest.mark.parametrize(
    ("part", "ranges", "requests"),
    [(b"other bytes", True, 2), (BODY[:5000], False, 1), (BODY, True, 1), (BODY + b"too long", True, 2)],
    ids=["does not fit", "server without ranges", "whole already", "too long"],
)
def test_whatever_part_lies_there_the_file_comes_out_right(server, tmp_path, part, ranges, requests):
    server.bodies["/a"], server.knows_ranges = BODY, ranges
    (tmp_path / "a.bin.part").write_bytes(part)
    fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert (left(tmp_path), len(server.asked)) == (["a.bin"], requests)


TAGGED, DATED = {"ETag": '"v1"'}, {"ETag": 'W/"v1"', "Last-Modified": "Wed, 01 Oct 2014 07:28:00 GMT"}


@pytest.mark.parametrize("version", [TAGGED, DATED], ids=["tag", "date"])
def test_without_a_hash_a_transfer_goes_on_in_the_next_run_where_the_server_names_the_version(
    server, tmp_path, version
):
    server.bodies["/a"], server.breaks["/a"], server.versions["/a"] = BODY, [400_000, 300_000], version
    with pytest.raises(HarnessError, match="connection lost"):
        fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a", ""), ("/a", "bytes=400000-"), ("/a", "bytes=700000-")]
    assert left(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("lies", [False, True], ids=["says so", "sends the piece all the same"])
def test_without_a_hash_two_versions_of_a_file_are_never_joined(server, tmp_path, lies):
    server.bodies["/a"], server.breaks["/a"], server.versions["/a"] = BODY, [400_000, 1], TAGGED
    with pytest.raises(HarnessError):
        fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    newer = BODY[::-1]
    server.bodies["/a"], server.versions["/a"], server.lies = newer, {"ETag": '"v2"'}, lies
    fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == newer


def test_without_a_hash_the_piece_of_one_mirror_is_not_gone_on_with_from_another(server, tmp_path):
    server.bodies |= {"/a": BODY, "/b": BODY[::-1]}
    server.breaks["/a"], server.versions = [400_000, 1], {"/a": TAGGED, "/b": TAGGED}
    fetch.download([server.url("/a"), server.url("/b")], None, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]
    assert server.asked[-1] == ("/b", "")


def test_without_a_hash_a_whole_file_that_a_killed_run_left_is_taken(server, tmp_path):
    server.bodies["/a"], server.versions["/a"] = BODY, TAGGED
    (tmp_path / "a.bin.part").write_bytes(BODY)
    (tmp_path / "a.bin.part.version").write_text(f'{server.url("/a")}\n"v1"')
    fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    assert (left(tmp_path), server.asked) == (["a.bin"], [("/a", f"bytes={len(BODY)}-")])


def test_a_server_that_sends_another_piece_than_was_asked_for_is_not_believed(server, tmp_path):
    def shifted(handler: Handler) -> None:
        if not handler.headers.get("Range"):
            handler.head(200, Content_Length=str(len(BODY)))
            return
        handler.head(206, Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}", Content_Length=str(len(BODY) - 5))
        handler.wfile.write(BODY[5:])

    server.bodies["/good"], server.moods["/bad"] = BODY, shifted
    (tmp_path / "a.bin.part").write_bytes(BODY[:5000])
    fetch.download([server.url("/bad"), server.url("/good")], sha(BODY), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_long_download_says_how_far_it_is_where_nobody_looks_at_a_terminal(server, tmp_path, monkeypatch, capsys):
    server.bodies["/a"] = BODY
    monkeypatch.setattr(fetch, "PROGRESS_SECONDS", 0)
    fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin")
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("a.bin: 1.0 of 1.0 MB, ")
    assert all(line.startswith("a.bin: ") and "MB/s" in line for line in told)


def test_without_a_hash_or_a_version_nothing_is_gone_on_with(server, tmp_path):
    server.bodies["/a"], server.breaks["/a"] = BODY, [600_000]
    (tmp_path / "a.bin.part").write_bytes(b"other bytes")
    fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a", ""), ("/a", "")]


def test_a_file_over_the_cap_is_refused_before_it_is_kept(server, tmp_path):
    server.bodies["/a"] = BODY
    with pytest.raises(HarnessError, match="larger than the 1,000 bytes allowed"):
        fetch.download([server.url("/a")], sha(BODY), tmp_path / "a.bin", max_bytes=1000)
    assert left(tmp_path) == []


def test_two_that_want_the_same_file_download_it_once(server, tmp_path):
    server.bodies["/a"] = BODY
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(fetch.download, [server.url("/a")], sha(BODY), tmp_path / "a.bin") for _ in range(4)]
        assert {job.result() for job in jobs} == {tmp_path / "a.bin"}
    assert len(server.asked) == 1


def test_two_processes_that_want_the_same_file_download_it_once(server, tmp_path):
    def slow(handler: Handler) -> None:
        handler.head(200, Content_Length=str(len(BODY)))
        handler.wfile.write(BODY[:1000])
        time.sleep(0.5)  # long enough for the other process to come
        handler.wfile.write(BODY[1000:])

    server.moods["/a"] = slow
    words = [server.url("/a"), sha(BODY), str(tmp_path / "a.bin")]
    code = "import sys; from pathlib import Path; from harness.data import fetch; a, b, c = sys.argv[1:]; "
    code += "fetch.download([a], b, Path(c))"
    both = [subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert len(server.asked) == 1


def stall(handler: Handler) -> None:
    handler.head(200, Content_Length=str(len(BODY)))
    handler.wfile.write(BODY[:500_000])
    cast(Server, handler.server).over.wait(30)


def mute(handler: Handler) -> None:
    cast(Server, handler.server).over.wait(30)


def trickle(handler: Handler) -> None:
    """A byte at a time: never silent for long, never done."""
    handler.head(200, Content_Length=str(len(BODY)))
    for place in range(400):
        handler.wfile.write(BODY[place : place + 1])
        if cast(Server, handler.server).over.wait(0.05):
            return


def reset(handler: Handler) -> None:
    """Half of it, then the server's process is gone: no end of the connection, a reset."""
    handler.head(200, Content_Length=str(len(BODY)))
    handler.wfile.write(BODY[:300_000])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def claims(length: object) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=str(length))
        handler.wfile.write(BODY)

    return answer


def leads_to(address: str) -> Callable[[Handler], None]:
    return lambda handler: handler.head(302, Location=address)


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (stall, "timed out"),
        (mute, "timed out"),
        (trickle, "slower than 1,000 bytes in 0.3 s"),
        (reset, "connection lost"),
        (claims(len(BODY) + 1000), "connection lost"),
        (claims(len(BODY) - 1000), "wrong sha256"),
        (claims(10**15), "1,000,000,000,000,000 bytes to download, but"),
        (leads_to("/bad"), "too many redirects"),
        (leads_to("file:///etc/passwd"), "InvalidSchema"),
        (lambda handler: handler.head(200, Content_Type="text/html; charset=utf-8"), "the server sent a web page"),
        (lambda handler: handler.send_error(503), "HTTP 503"),
    ],
    ids=[
        "stalls",
        "mute",
        "trickles",
        "dies",
        "length-over",
        "length-under",
        "no-room",
        "circle",
        "file-scheme",
        "portal",
        "503",
    ],
)
def test_whatever_a_server_does_it_is_named_and_the_next_mirror_is_asked(server, tmp_path, monkeypatch, mood, words):
    monkeypatch.setattr(fetch, "SLOW_BYTES", 1000)
    server.moods["/bad"] = mood
    if mood in (stall, mute):  # a busy machine may be slow to answer: impatient only where nothing comes
        monkeypatch.setattr(fetch, "TIMEOUT", (5, 0.25))
    if mood is trickle:
        monkeypatch.setattr(fetch, "SLOW_SECONDS", 0.3)
    with pytest.raises(HarnessError) as caught:
        fetch.download([server.url("/bad")], sha(BODY), tmp_path / "a.bin", max_bytes=1 << 60)
    assert f"/bad ({words}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a.bin").exists()
    server.bodies["/good"] = BODY
    monkeypatch.setattr(fetch, "TIMEOUT", (5, 3))  # patient with the good server
    monkeypatch.setattr(fetch, "SLOW_SECONDS", 3)
    fetch.download([server.url("/bad"), server.url("/good")], sha(BODY), tmp_path / "a.bin", max_bytes=1 << 60)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_length_that_is_no_number_and_a_redirect_to_the_file_do_no_harm(server, tmp_path):
    server.bodies["/there"] = BODY
    server.moods |= {"/odd": claims("many"), "/moved": leads_to("/there")}
    fetch.download([server.url("/odd")], sha(BODY), tmp_path / "a.bin")
    fetch.download([server.url("/moved")], sha(BODY), tmp_path / "b.bin")
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes() == BODY


def test_without_a_hash_a_transfer_that_is_cut_short_is_not_taken_for_the_file(server, tmp_path):
    server.moods["/a"] = claims(len(BODY) + 1)
    with pytest.raises(HarnessError, match="connection lost"):
        fetch.download([server.url("/a")], None, tmp_path / "a.bin")
    assert not (tmp_path / "a.bin").exists()


def test_a_disk_that_takes_no_more_is_one_line(server, tmp_path):
    server.bodies["/a"] = BODY
    code = "import resource, sys; from pathlib import Path; from harness.data import fetch; from harness import types\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    code += "try: fetch.download([sys.argv[1]], None, Path(sys.argv[2]))\n"
    code += "except types.HarnessError as error: print(error)"
    command = [sys.executable, "-c", code, server.url("/a"), str(tmp_path / "a.bin")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{tmp_path / 'a.bin'} cannot be written: File too large.\n"


def test_a_mirrors_password_is_not_written_beside_an_interrupted_download(server, tmp_path, monkeypatch):
    monkeypatch.setenv(fetch.MIRROR, server.url("/labs").replace("//", "//someone:secret@"))
    path = "/labs/data.invalid/a.bin"
    server.bodies[path], server.breaks[path], server.versions[path] = BODY, [400_000, 1], TAGGED
    with pytest.raises(HarnessError):
        fetch.download(["http://data.invalid/a.bin"], None, tmp_path / "a.bin")
    kept = [file for file in tmp_path.iterdir() if file.name.endswith(".version")]
    assert kept, "the address of the interrupted transfer is kept"
    assert "secret" not in kept[0].read_text()
    fetch.download(["http://data.invalid/a.bin"], None, tmp_path / "a.bin")
    assert server.asked[-1][1].startswith("bytes="), "and the transfer goes on where it stopped"
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_mirror_is_asked_first_by_host_and_path_and_its_password_is_never_told(server, tmp_path, monkeypatch):
    base = server.url("/labs/").replace("//", "//someone:secret@")
    monkeypatch.setenv(fetch.MIRROR, base)
    official = ["http://data.invalid/sets/a.bin"]
    server.bodies["/labs/data.invalid/sets/a.bin"] = BODY
    fetch.download(official, sha(BODY), tmp_path / "a.bin")
    assert server.asked == [("/labs/data.invalid/sets/a.bin", "")]
    server.bodies.clear()
    with pytest.raises(HarnessError) as caught:
        fetch.download([f"{official[0]}?token=secret"], sha(BODY), tmp_path / "b.bin")
    assert f"{server.url('/labs/data.invalid/sets/a.bin')} (HTTP 404)" in str(caught.value)
    assert f"{official[0]} (host unreachable)" in str(caught.value)
    assert "secret" not in str(caught.value)
    for wrong in ("lab:secret@nowhere", "http://[secret"):
        monkeypatch.setenv(fetch.MIRROR, wrong)
        with pytest.raises(HarnessError, match=r"HARNESS_MIRROR must have the form http://host/folder") as caught:
            fetch.download(official, sha(BODY), tmp_path / "b.bin")
        assert "secret" not in str(caught.value)


def test_a_mirrors_password_is_not_sent_unencrypted_to_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv(fetch.MIRROR, "http://someone:secret@mirror.invalid/sets")
    with pytest.raises(HarnessError, match=r"unencrypted to mirror\.invalid\. Use https") as caught:
        fetch.download(["http://data.invalid/a.bin"], None, tmp_path / "a.bin")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")
    with pytest.raises(HarnessError, match="host unreachable"):
        fetch.download(["http://data.invalid/a.bin"], None, tmp_path / "a.bin")


def test_a_mirror_on_loopback_is_reached_without_a_proxy(server, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.bodies["/data.example/a.bin"] = BODY
    monkeypatch.setenv(fetch.MIRROR, server.url("").replace("//", "//someone:secret@"))
    fetch.download(["http://data.example/a.bin"], sha(BODY), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_members_of_a_tar_are_streamed_and_bad_ones_refused(tmp_path, monkeypatch):
    place = tmp_path / "a.zip"

    def read(body: bytes) -> dict[str, bytes]:
        place.write_bytes(make_zip({"a.tar": body}))
        with archives.member(place, "a.tar") as stream:
            return {name: source.read() for name, source in archives.tar_members(place, stream, ["one", "two"])}

    assert read(make_tar({"two": b"2", "in/other": b"3", "in/one": b"1"})) == {"two": b"2", "one": b"1"}
    for name in ("../one", "/one", "in/../../one"):
        with pytest.raises(HarnessError, match="points outside the archive"):
            read(make_tar({name: b"1"}))
    with pytest.raises(HarnessError, match="'one' is a link or a folder"):
        read(make_tar({}, "one"))
    assert read(make_tar({"../three": b"3"}, "other")) == {}
    for body in (make_tar({"one": BODY})[:2000], b"no tar at all"):
        with pytest.raises(HarnessError, match="is damaged"):
            read(body)
    monkeypatch.setattr(archives, "MAX_STREAM_BYTES", 9999)
    with pytest.raises(HarnessError, match="'one' has 10,000 bytes; the limit is 9,999"):
        read(make_tar({"one": b"x" * 10_000}))


def test_a_zip_member_is_streamed_from_whatever_folder(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(make_zip({"__MACOSX/in/one": b"0", "in/one": b"1", "../two": b"2"}))
    with archives.member(archive, "*/one") as source:
        assert source.read() == b"1"
    for name, words in (("*/two", "points outside the archive"), ("*/three", "no member 'three'")):
        with pytest.raises(HarnessError, match=words), archives.member(archive, name):
            pass
    assert left(tmp_path) == ["a.zip"]


def test_a_stream_is_read_in_bounded_lines_and_blocks_and_a_bomb_is_stopped(tmp_path, monkeypatch):
    archive = tmp_path / "a.gz"
    archive.write_bytes(gzip.compress(b"one\ntwo\nthree"))
    monkeypatch.setattr(archives, "LINES_BLOCK", 5)
    with archives.gunzipped(archive) as source:
        assert list(archives.lines(archive, source)) == [b"one\n", b"two\n", b"three"]
    with archives.gunzipped(archive) as source:
        assert list(archives.blocks(archive, source)) == [b"one\ntwo\n", b"three"]
    monkeypatch.setattr(archives, "MAX_STREAM_BYTES", 7)
    for read in (archives.lines, archives.blocks):
        with (
            archives.gunzipped(archive) as source,
            pytest.raises(HarnessError, match="more than the 7 bytes allowed"),
        ):
            list(read(archive, source))
    for bomb in (b"\n" * 10_000_000, b"{}\n" * 3_000_000):  # lines that are all short
        archive.write_bytes(gzip.compress(bomb, 9))
        monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
        monkeypatch.setattr(archives, "MAX_STREAM_BYTES", 1 << 40)
        for read in (archives.lines, archives.blocks):
            with archives.gunzipped(archive) as source, pytest.raises(HarnessError, match="allowed for its size"):
                for _ in read(archive, source):
                    pass
    archive.write_bytes(gzip.compress(b"one\ntwo\nthree"))
    monkeypatch.setattr(archives, "MAX_LINE", 2)
    with archives.gunzipped(archive) as source, pytest.raises(HarnessError, match="line 1 is longer than the 2 bytes"):
        list(archives.lines(archive, source))
    for body in (archive.read_bytes()[:-9], b"<html>"):
        archive.write_bytes(body)
        with pytest.raises(HarnessError, match="is damaged"), archives.gunzipped(archive) as source:
            source.read()


def make_wheel(members: dict[str, bytes], project: str = "recbole", version: str = "1.2.1") -> bytes:
    """A wheel that would be noticed if it were installed for its needs, or refused for its Python."""
    info = f"{project}-{version}.dist-info"
    about = (
        f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nRequires-Python: <3\nRequires-Dist: no-such-x\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return make_zip(
        {f"{info}/METADATA": about.encode(), f"{info}/WHEEL": tags.encode(), f"{info}/RECORD": b"", **members}
    )


@pytest.fixture
def index(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as pip's only package index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("/simple/"))
    return server


def offer(index: Server, wheel: bytes, project: str = "recbole", version: str = "1.2.1") -> None:
    name = f"{project}-{version}-py3-none-any.whl"
    index.bodies[f"/simple/{project}/"] = (
        f'<!DOCTYPE html><html><body><a href="/{name}">{name}</a></body></html>'.encode()
    )
    index.bodies[f"/{name}"] = wheel


def test_a_wheel_is_taken_as_an_archive_whatever_it_needs(index, tmp_path):
    body = make_wheel({"recbole/data.txt": b"data"})
    offer(index, body)
    target = tmp_path / "downloads" / "recbole.whl"
    assert fetch.wheel("recbole", "1.2.1", sha(body), target) == target
    assert target.read_bytes() == body
    assert left(target.parent) == ["recbole.whl"]
    assert not any("no-such-x" in path for path, _ in index.asked)
    index.asked.clear()
    fetch.wheel("recbole", "1.2.1", sha(body), target)
    assert index.asked == []


def test_a_wheel_of_another_hash_or_none_at_all_is_refused_and_not_kept(index, tmp_path):
    offer(index, make_wheel({"recbole/data.txt": b"tampered with"}))
    with pytest.raises(HarnessError, match=r"pip download recbole==1\.2\.1 \(wrong sha256\)"):
        fetch.wheel("recbole", "1.2.1", sha(BODY), tmp_path / "a.whl")
    with pytest.raises(HarnessError, match=r"No matching distribution found for recbole==9\.9") as caught:
        fetch.wheel("recbole", "9.9", sha(BODY), tmp_path / "b.whl")
    assert f"put it at {tmp_path / 'b.whl'}" in str(caught.value)
    assert left(tmp_path) == []


def test_only_the_named_members_are_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip({"in/one": b"1", "in/two": b"2", "in/three": b"3"}))
    archives.extract(tmp_path / "a.zip", {"in/one": tmp_path / "out" / "x", "in/three": tmp_path / "out" / "y"})
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == {"x": b"1", "y": b"3"}


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "in/../../up", "C:/up", "in\\up"])
def test_a_member_that_would_leave_the_folder_is_refused(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(make_zip({"fine": b"1", name: b"2"}))
    with pytest.raises(HarnessError, match="points outside the archive"):
        archives.extract(tmp_path / "a.zip", {"fine": tmp_path / "x", name: tmp_path / "y"})
    assert left(tmp_path) == ["a.zip"]


def test_links_folders_oversize_absent_and_damaged_members_are_refused(tmp_path, monkeypatch):
    archive = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(link, "/etc/passwd")
        made.writestr("folder/", b"")
        made.writestr("large", b"x" * 100)
        made.writestr("small", b"marked bytes")

    def refusal(member: str) -> str:
        with pytest.raises(HarnessError) as caught:
            archives.extract(archive, {"small": tmp_path / "s", member: tmp_path / "y"})
        return str(caught.value)

    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 99)
    assert "'link' is a link or a folder" in refusal("link")
    assert "'folder/' is a link or a folder" in refusal("folder/")
    assert "'large' has 100 bytes; the limit is 99" in refusal("large")
    assert "no member 'smalll'. Did you mean 'small'?" in refusal("smalll")
    assert left(tmp_path) == ["a.zip"]
    archive.write_bytes(archive.read_bytes().replace(b"marked", b"forged"))
    with pytest.raises(HarnessError, match="is damaged"):
        archives.extract(archive, {"small": tmp_path / "s"})
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(HarnessError, match="is damaged"):
        archives.extract(archive, {"small": tmp_path / "s"})
    assert left(tmp_path) == ["a.zip"]


DATA = "196\t242\t3\t881250949\n186\t302\t5\t891717742\n22\t377\t1\t878887116\n"
FLAGS = {"unknown": 0, "Animation": 3, "Children's": 4, "Drama": 8, "Musical": 12}


def item_line(number: int, name: str, *genres: str) -> str:
    flags = ["1" if place in [FLAGS[genre] for genre in genres] else "0" for place in range(19)]
    return "|".join([str(number), name, "01-Jan-1995", "", f"http://us.imdb.com/{number}", *flags])


CARTOON = ["Animation", "Children's"]
OFFICIAL = [
    item_line(242, "Misérables, Les (1995)", "Drama", "Musical"),
    item_line(267, "unknown", "unknown"),
    item_line(302, "Marlene Dietrich: Shadow (1996) ", "Drama"),
    item_line(377, "Land Before Time III: The Great Giving (1995) (V)", *CARTOON),
]
RECBOLE = [
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
    "242\tMisérables, Les\t1995\tDrama Musical",
    "267\tunkonwn\tunkonwn\tunknown",
    "302\tMarlene Dietrich: Shadow\t1996\tDrama",
    "377\tLand Before Time III: The Great Giving (1995)\tV\tAnimation Children's",
]
MOVIES = [
    {"item_id": "242", "title": "Misérables, Les", "year": 1995, "genres": ["Drama", "Musical"]},
    {"item_id": "267", "title": "unknown", "year": None, "genres": ["unknown"]},
    {"item_id": "302", "title": "Marlene Dietrich: Shadow", "year": 1996, "genres": ["Drama"]},
    {"item_id": "377", "title": "Land Before Time III: The Great Giving", "year": 1995, "genres": CARTOON},
]


def official_zip(items: list[str] = OFFICIAL) -> bytes:
    item = "".join(line + "\n" for line in items).encode("latin-1")
    return make_zip({"ml-100k/u.data": DATA.encode(), "ml-100k/u.item": item, "ml-100k/README": b"terms"})


def serve_official(server: Server, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    server.bodies["/ml-100k.zip"] = body
    monkeypatch.setattr(ml_100k, "URLS", [server.url("/ml-100k.zip")])
    monkeypatch.setattr(ml_100k, "ZIP_SHA256", sha(body))


def frames(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.read_parquet(folder / "interactions.parquet"), pl.read_parquet(folder / "items.parquet")


def test_the_official_archive_becomes_two_files_with_the_licence_said_once(server, home, monkeypatch, capsys):
    serve_official(server, monkeypatch, official_zip())
    raw = open_dataset("ml-100k", home)
    events, items = frames(raw.interactions.parent)
    assert events.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
    assert events.row(0) == ("196", "242", 881250949, 3.0)
    assert items.to_dicts() == MOVIES
    assert (raw.name, raw.text) == ("ml-100k", "{title} ({year}). {genres}")
    assert ready(home) == ["ml-100k"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "no redistribution" in err
    assert "Harper" in err
    assert open_dataset("ml_100k", home) == raw
    assert capsys.readouterr().err == ""
    assert len(server.asked) == 1


def test_the_wheel_gives_the_same_files_where_the_official_host_cannot_be_reached(index, home, monkeypatch):
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + DATA
    item = "".join(line + "\n" for line in RECBOLE)
    folder = ml_100k.WHEEL_FOLDER
    body = make_wheel({f"{folder}/ml-100k.inter": inter.encode(), f"{folder}/ml-100k.item": item.encode()})
    offer(index, body)
    monkeypatch.setattr(ml_100k, "URLS", ["http://127.0.0.1:9/ml-100k.zip"])
    monkeypatch.setattr(ml_100k, "WHEEL_SHA256", sha(body))
    wheel_files = frames(open_dataset("ml-100k", home / "one").interactions.parent)
    serve_official(index, monkeypatch, official_zip())
    zip_files = frames(open_dataset("ml-100k", home / "two").interactions.parent)
    assert wheel_files[0].equals(zip_files[0])
    assert wheel_files[1].equals(zip_files[1])
    assert wheel_files[1].to_dicts() == MOVIES


def test_when_no_source_can_be_reached_the_archive_may_be_put_there_by_hand(index, home, monkeypatch):
    body = official_zip()
    monkeypatch.setattr(ml_100k, "URLS", [index.url("/gone.zip")])
    monkeypatch.setattr(ml_100k, "ZIP_SHA256", sha(body))
    with pytest.raises(HarnessError) as caught:
        open_dataset("ml-100k", home)
    text, place = str(caught.value), home / "downloads" / "ml-100k.zip"
    assert "\n" not in text
    assert "/gone.zip (HTTP 404)" in text
    assert "pip download recbole==1.2.1 (" in text
    assert f"put it at {place}" in text
    assert ready(home) == []
    place.write_bytes(body)
    assert open_dataset("ml-100k", home).items.is_file()


def test_an_archive_that_is_not_the_data_set_leaves_nothing_behind(server, home, monkeypatch):
    serve_official(server, monkeypatch, official_zip(["242|Misérables, Les (1995)|1|0"]))
    with pytest.raises(HarnessError, match="item '242' has 4 fields, expected 24"):
        open_dataset("ml-100k", home)
    assert left(home / "data") == []
    (home / "data" / "ml-100k").mkdir()
    with pytest.raises(HarnessError, match="delete the folder"):
        open_dataset("ml-100k", home)
