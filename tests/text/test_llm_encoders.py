"""Encoders that take long or cost money: a small transformers decoder, and an API on a local server that misbehaves.

What a killed run leaves behind, and that two processes encode once, is tested here, too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import tiny_decoder
import torch

from harness.data import preparation, reader
from harness.text.embeddings import basis, cost, embed, embedding_hash, embedding_info, texts_of
from harness.text.encoders import _base, api, hf
from harness.text.encoders._base import Texts, encoder
from harness.text.encoders._parts import Parts
from harness.types import HarnessError, PrepSpec

WORDS = ["red", "blue", "green", "shoe", "hat", "wool", "steel", "large", "small", "soft"]
KEY = "sk-" + "a1b2" * 8


def catalogue(n: int, seed: int = 0, longest: int = 9) -> Texts:
    """n items of 1 to `longest` words; item 1 has no text, items 0 and 2 have the same."""
    rng = np.random.default_rng(seed)
    texts: list[str | None] = [" ".join(rng.choice(WORDS, rng.integers(1, longest + 1))) for _ in range(n)]
    texts[1], texts[2] = None, texts[0]
    return Texts([f"i{i}" for i in range(n)], texts, list(range(n)), n)


def different(n: int) -> Texts:
    """n items whose texts are all different."""
    return Texts([f"i{i}" for i in range(n)], [f"thing {i:03d}" for i in range(n)], list(range(n)), n)


def made(word: str, texts: Texts, home: Path) -> np.ndarray:
    return embed(encoder(word, home), texts, home)


def refusal(word: str, texts: Texts, home: Path) -> str:
    with pytest.raises(HarnessError) as error:
        made(word, texts, home)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    return str(error.value)


def part_files(home: Path) -> list[Path]:
    return sorted((home / "cache" / "embeddings").glob("*.part/0*.npy"))


def in_another_process(work: Callable[[], object]) -> Any:
    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    return process


def killed_after(parts: int, work: Callable[[], object], home: Path) -> None:
    """Run `work` in a process of its own and kill it as soon as it has kept that many parts."""
    process = in_another_process(work)
    until = time.monotonic() + 30
    while len(part_files(home)) < parts:
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(part_files(home)) >= parts


# --- words, options, identities


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hf", "'hf' needs a transformers model id or folder"),
        ("hf:x[poolin=last]", "unknown option 'poolin'. Did you mean 'pooling'"),
        ("hf:x[pooling=cls]", "pooling cannot be 'cls'. Known: mean, last"),
        ("hf:x[dtype=bfloat]", "dtype cannot be 'bfloat'. Did you mean 'bfloat16'"),
        ("hf:x[max_tokens=0]", "max_tokens must be a whole number from 1 to 1,000,000, not '0'"),
        ("hf:x[max_tokens=true]", "not 'True'"),
        ("hf:x[max_tokens=5", "the bracket is not closed"),
        ("api:m[batch=9999]", "batch must be a whole number from 1 to 2,048, not '9999'"),
        ("api:m@localhost:8000", "must be a URL that begins with http"),
        ("api:m@http://", "is not a URL such as"),
        ("api:m@http://h:99999/v1", "is not a URL such as"),
        ("api:m@https://user:secret@h/v1", "must not contain a user, a password"),
        ("api:m@https://h/v1?key=secret", "must not contain a user, a password, ?"),
    ],
)
def test_a_word_that_cannot_be_is_refused_in_one_line(tmp_path, word, said):
    with pytest.raises(HarnessError) as error:
        encoder(word, tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_word_says_what_differs_from_the_defaults_and_labels_leave_folders_out(tmp_path):
    words = {
        "hf:/a/b/llama[pooling=last]": "hf:llama[pooling=last]",
        "shuffled:hf:owner/llama[max_tokens=64]": "shuffled:hf:llama[max_tokens=64]",
        "api:m@http://127.0.0.1:81/v1[dimensions=8]": "api:m@127.0.0.1:81[dimensions=8]",
        "api:m": "api:m",
        "st:/a/b": "st:b",
    }
    for word, label in words.items():
        made = encoder(word, tmp_path)
        assert (made.word, made.label) == (word, label)
    assert encoder("hf:x[pooling=mean,dtype=bfloat16]", tmp_path).word == "hf:x[dtype=bfloat16]"


def test_the_base_of_an_api_is_the_words_own_or_the_environments(tmp_path, monkeypatch):
    monkeypatch.delenv("HARNESS_API_BASE", raising=False)

    def base(word: str) -> str:
        return cast(api.Api, encoder(word, tmp_path)).base

    assert base("api:m") == "https://api.openai.com/v1"
    monkeypatch.setenv("HARNESS_API_BASE", "http://here:8000/v1/")
    assert base("api:m") == "http://here:8000/v1"
    assert base("api:m@https://there/proxy/v1/embeddings") == "https://there/proxy/v1"
    assert base("api:@cf/m@http://there") == "http://there/v1"
    identities = [encoder(word, tmp_path).identity() for word in ("api:m", "api:n", "api:m@http://x", "api:m[batch=9]")]
    identities.append(encoder("api:m[dimensions=9]", tmp_path).identity())
    assert len({json.dumps(identity) for identity in identities}) == 4
    assert identities[0] == identities[3]  # how many texts a request holds changes nothing
    assert not any(KEY in json.dumps(identity) for identity in identities)


def test_another_template_or_order_of_items_has_another_key(dataset, home):
    def key(template: str, spec: PrepSpec) -> str:
        (dataset / "dataset.toml").write_text(f'text = "{template}"')
        return embedding_hash(
            encoder("minilm", home),
            texts_of(preparation.prepare(reader.open_dataset(str(dataset), home), spec, home)),
        )

    items = pl.read_parquet(dataset / "items.parquet").with_columns(brand=pl.lit("Acme"))
    items.write_parquet(dataset / "items.parquet")
    whole = PrepSpec(kcore=0)
    assert key("{title}", whole) == key("{title}", whole)
    assert len({key("{title}", whole), key("{title}. {brand}", whole), key("A {title}", whole)}) == 3
    texts = different(4)
    turned = Texts(texts.item_ids[::-1], texts.texts[::-1], texts.source_rows[::-1], 4)
    assert embedding_hash(encoder("minilm", home), texts) != embedding_hash(encoder("minilm", home), turned)


# --- a decoder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer LLaMA of random weights, 32 positions, and a tokenizer of ten words."""
    return tiny_decoder.make(tmp_path_factory.mktemp("models") / "small", WORDS)


def states(folder: Path, text: str, limit: int = 32) -> np.ndarray:
    """The last hidden states of one text, (tokens, D), by the model in float64, without any padding."""
    from transformers import AutoModel

    tokens = [1, *(2 + WORDS.index(word) for word in text.split())][:limit]
    model = AutoModel.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        return model(torch.tensor([tokens])).last_hidden_state[0].numpy()


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_row_is_the_pooled_states_of_its_text_whatever_stands_beside_it(decoder, tmp_path, monkeypatch, pooling):
    texts = catalogue(40)
    E = made(f"hf:{decoder}[pooling={pooling}]", texts, tmp_path / "a")
    assert not E[1].any()
    np.testing.assert_array_equal(E[0], E[2])
    for i, text in enumerate(texts.texts[:8]):
        if text is not None:
            direct = states(decoder, text)
            np.testing.assert_allclose(E[i], direct.mean(0) if pooling == "mean" else direct[-1], atol=2e-5)
    monkeypatch.setattr(hf, "BATCH", 1)  # no padding
    alone = made(f"hf:{decoder}[pooling={pooling}]", texts, tmp_path / "b")
    np.testing.assert_allclose(E, alone, atol=2e-5)


@pytest.mark.parametrize("kind", ["rwkv", "roberta", "t5"])
def test_a_model_whose_states_depend_on_padding_is_refused(tmp_path, decoder, kind):
    import transformers

    small = {"vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 66, "pad_token_id": 1}
    torch.manual_seed(0)
    if kind == "rwkv":
        model = transformers.RwkvModel(transformers.RwkvConfig(**small, attention_hidden_size=16))
    elif kind == "roberta":
        model = transformers.RobertaModel(transformers.RobertaConfig(**small, **heads), add_pooling_layer=False)
    else:
        config = transformers.T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        model = transformers.T5Model(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.3)
    folder = shutil.copytree(decoder, tmp_path / "model")
    (folder / "config.json").unlink()
    model.save_pretrained(folder)
    said = refusal(f"hf:{folder}", catalogue(8), tmp_path / "home")
    assert ("is an encoder-decoder (t5)" if kind == "t5" else f"states of its {kind} model depend on padding") in said


def test_padding_on_the_left_changes_nothing_for_positions_that_are_absolute(tmp_path, decoder):
    from transformers import GPT2Config, GPT2Model

    for file in decoder.glob("tokenizer*"):
        (tmp_path / "gpt").mkdir(exist_ok=True)
        (tmp_path / "gpt" / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(0)
    GPT2Model(
        GPT2Config(vocab_size=12, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)
    ).save_pretrained(tmp_path / "gpt")
    texts = Texts(["a", "b"], ["red " * 12, "hat"], [0, 1], 2)
    E = made(f"hf:{tmp_path}/gpt", texts, tmp_path)
    np.testing.assert_allclose(E[1], states(tmp_path / "gpt", "hat").mean(0), atol=2e-5)


def test_batches_are_bounded_by_their_tokens_and_their_padding_and_longest_first(decoder, tmp_path, monkeypatch):
    monkeypatch.setattr(hf, "BATCH_TOKENS", 20)
    shapes, encode = [], hf.HuggingFace._encode
    monkeypatch.setattr(
        hf.HuggingFace,
        "_encode",
        lambda self, model, ids: shapes.append([len(row) for row in ids]) or encode(self, model, ids),
    )
    made(f"hf:{decoder}", catalogue(40), tmp_path)
    assert all(len(shape) * max(shape) <= 20 for shape in shapes)
    flat = [length for shape in shapes for length in shape]
    assert flat == sorted(flat, reverse=True)
    assert len(shapes) < len(flat) / 2


def test_a_long_text_is_cut_at_the_limit_and_the_number_of_them_told_once(decoder, tmp_path, capsys):
    texts = Texts(["a", "b", "c", "d"], ["red hat " * 30, "blue shoe wool", "blue shoe", None], [0, 1, 2, 3], 4)
    E = made(f"hf:{decoder}[max_tokens=3]", texts, tmp_path)
    np.testing.assert_allclose(E[0], states(decoder, "red hat").mean(0), atol=2e-5)
    np.testing.assert_allclose(E[1], E[2], atol=2e-5)
    said = capsys.readouterr().err
    assert said.count("2 of 3 texts are longer than 3 tokens; their ends are cut off.") == 1
    assert embedding_info(encoder(f"hf:{decoder}[max_tokens=3]", tmp_path), texts, tmp_path) == {
        "missing": 1,
        "distinct": 3,
        "cut": 2,
    }
    made(f"hf:{decoder}", texts, tmp_path)  # 512 asked, but the model has 32 positions
    assert "1 of 3 texts are longer than 32 tokens" in capsys.readouterr().err


def test_a_text_without_tokens_is_a_zero_row(decoder, tmp_path):
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    bare.mkdir()
    for file in decoder.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((bare / "tokenizer.json").read_text()) | {"post_processor": None}
    (bare / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert AutoTokenizer.from_pretrained(bare)(" ")["input_ids"] == []
    for pooling in ("mean", "last"):
        E = made(f"hf:{bare}[pooling={pooling}]", Texts(list("abc"), ["red", " ", "red hat"], [0, 1, 2], 3), tmp_path)
        assert not E[1].any()
        assert E[0].any()


def test_bfloat16_is_near_float32_and_another_embedding(decoder, tmp_path):
    texts = catalogue(12)
    full, half = (made(f"hf:{decoder}[dtype={dtype}]", texts, tmp_path) for dtype in ("float32", "bfloat16"))
    assert (full != half).any()
    np.testing.assert_allclose(full, half, atol=0.1)


def test_a_decoder_is_known_by_the_content_of_its_folder_and_its_options(decoder, tmp_path):
    def key(word: str) -> str:
        return embedding_hash(encoder(word, tmp_path), different(3))

    copy = tmp_path / "copy"
    (copy / "original").mkdir(parents=True)
    for file in decoder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "original" / "other.safetensors").write_bytes(b"never read")
    (copy / "README.md").write_text("a card")
    plain = key(f"hf:{decoder}")
    assert key(f"hf:{copy}") == plain
    others = [f"hf:{copy}[{option}]" for option in ("pooling=last", "dtype=bfloat16", "max_tokens=9")]
    assert len({plain, *map(key, others)}) == 4
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        before, content = key(f"hf:{copy}"), bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        assert key(f"hf:{copy}") != before
    commit = encoder(f"hf:owner/model@{'0' * 40}", tmp_path).identity()
    assert (commit["model"], commit["commit"]) == ("owner/model", "0" * 40)


def test_a_decoder_that_cannot_be_loaded_is_refused_in_one_line(decoder, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "is neither a folder nor a model in the local Hugging Face cache" in refusal(
        "hf:no/such", different(3), tmp_path
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    assert "cannot be loaded by transformers" in refusal(f"hf:{copy}", different(3), tmp_path)
    for file in decoder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "model.safetensors").write_bytes(b"damaged")
    assert "cannot be loaded by transformers" in refusal(f"hf:{copy}", different(3), tmp_path)
    config = json.loads((decoder / "config.json").read_text())
    foreign = config | {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (copy / "config.json").write_text(json.dumps(foreign))
    (copy / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "cannot be loaded by transformers" in refusal(f"hf:{copy}", different(3), tmp_path)
    assert not (tmp_path / "ran").exists()
    (copy / "config.json").write_text(json.dumps(config))
    weights = load_file(decoder / "model.safetensors")
    del weights["layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert "do not match the model's config.json, for example layers.1.mlp" in refusal(
        f"hf:{copy}", different(3), tmp_path
    )


def test_a_killed_decoder_goes_on_and_comes_to_the_same_matrix(decoder, tmp_path, monkeypatch, capsys):
    texts, word = catalogue(120), f"hf:{decoder}"
    monkeypatch.setattr(hf, "BATCH_TOKENS", 30)
    whole = made(word, texts, tmp_path / "whole")
    encode, seen = hf.HuggingFace._encode, []

    def slowly(self: hf.HuggingFace, model: object, ids: list[list[int]]) -> np.ndarray:
        time.sleep(0.02)
        return encode(self, model, ids)

    with monkeypatch.context() as patch:
        patch.setattr(hf.HuggingFace, "keep_seconds", 0.0)
        patch.setattr(hf.HuggingFace, "_encode", slowly)
        killed_after(4, lambda: made(word, texts, tmp_path), tmp_path)
    kept = sum(len(np.load(path)) for path in part_files(tmp_path))
    monkeypatch.setattr(hf.HuggingFace, "_encode", lambda *a: seen.append(len(a[2])) or encode(*a))
    capsys.readouterr()
    np.testing.assert_array_equal(made(word, texts, tmp_path), whole)
    distinct = len(set(texts.texts) - {None})
    assert 0 < kept < distinct
    assert sum(seen) == distinct - kept
    said = capsys.readouterr().err
    assert f"{kept:,} of {distinct:,} texts are already encoded; resuming from there." in said
    assert part_files(tmp_path) == []


# --- parts


@pytest.fixture
def parts(tmp_path) -> Parts:
    """Three parts of rows 0 to 5 of eight."""
    found = Parts(tmp_path / "key.part", [f"text {i}" for i in range(8)])
    for start in (0, 2, 4):
        found.add(np.arange(start, start + 2, dtype=np.float32)[:, None].repeat(3, axis=1))
    return found


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize("harm", [flipped, shortened, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_and_what_follows_are_begun_anew(parts, harm):
    harm(parts.paths[1])
    again = Parts(parts.folder, parts.order)
    assert again.done == 2
    again.prune()
    assert list(parts.folder.iterdir()) == parts.paths[:1]
    np.testing.assert_array_equal(np.concatenate(list(again)), [[0, 0, 0], [1, 1, 1]])


def test_parts_of_other_texts_or_another_embedding_are_begun_anew(parts):
    assert Parts(parts.folder, parts.order).done == 6
    assert Parts(parts.folder, [*parts.order[:3], "changed", *parts.order[4:]]).done == 2
    assert Parts(parts.folder, parts.order[::-1]).done == 0
    elsewhere = parts.folder.rename(parts.folder.with_name("other.part"))
    assert Parts(elsewhere, parts.order).done == 0


def test_rows_that_are_not_numbers_are_not_kept_for_the_next_run(tmp_path, monkeypatch, decoder):
    monkeypatch.setattr(hf.HuggingFace, "_encode", lambda self, model, ids: np.full((len(ids), 3), np.nan))
    assert "is NaN or infinite" in refusal(f"hf:{decoder}", different(5), tmp_path)
    assert not list((tmp_path / "cache" / "embeddings").iterdir())


def test_a_second_process_waits_for_the_first_and_reads_what_it_made(tmp_path, server, capfd):
    word, texts = f"api:m@{server.url}[batch=2]", different(12)
    server.delay = 0.1
    first = in_another_process(lambda: made(word, texts, tmp_path))
    until = time.monotonic() + 30
    while not part_files(tmp_path):
        assert time.monotonic() < until
        time.sleep(0.002)
    E = made(word, texts, tmp_path)
    first.join()
    assert len(server.asked) == 6
    np.testing.assert_array_equal(E, [vector(text) for text in texts.texts])
    assert "another process is encoding these texts; waiting for it." in capfd.readouterr().err


def test_progress_of_a_resumed_run_counts_what_is_left(tmp_path, server):
    word, texts, told = f"api:m@{server.url}[batch=2]", different(8), []
    here = cast(_base.TextEncoder, encoder(word, tmp_path))
    server.script = ["ok", "ok", "401"]
    with pytest.raises(HarnessError):
        here.encode_in(tmp_path / "p", texts, lambda *_: None)
    here.encode_in(tmp_path / "p", texts, lambda done, total: told.append((done, total)))
    assert told == [(2, 4), (4, 4)]


# --- an API


def vector(text: str, d: int = 6) -> np.ndarray:
    return np.random.default_rng(list(text.encode())).standard_normal(d).astype(np.float32)


class Server(ThreadingHTTPServer):
    """Answers /v1/embeddings. `script`: what it does to the next requests, then it is good. `asked`: what came."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.retry_after = "0"
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast(Server, self.server)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.asked.append(asked)
        server.keys.append(self.headers["Authorization"])
        time.sleep(server.delay)
        act = server.script.pop(0) if server.script else "ok"
        d = asked.get("dimensions", 6)
        data = [{"index": i, "embedding": vector(t, d).tolist()} for i, t in enumerate(asked["input"])]
        if self.path != "/v1/embeddings":
            self.reply(404, {})
        elif act.isdigit():
            message = f"Incorrect API key\nprovided: {KEY}" if act == "401" else "no\nluck"
            self.reply(int(act), {"error": {"message": message}})
        elif act == "quota":
            self.reply(429, {"error": {"message": "pay first", "code": "insufficient_quota"}})
        elif act == "stall":
            time.sleep(3)
        elif act == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"{")
            self.wfile.flush()
            time.sleep(3)
        elif act == "die":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b'{"data": [')
        elif act == "not json":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [')
        else:
            self.reply(200, {"data": DISTORT[act](data)})

    def reply(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", cast(Server, self.server).retry_after)
        if status == 307:
            self.send_header("Location", "http://127.0.0.1:9/v1/embeddings")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


def first_embedding(change: Callable[[list[float]], Any]) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda data: [data[0] | {"embedding": change(data[0]["embedding"])}, *data[1:]]


DISTORT: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "ok": lambda data: data,
    "turned": lambda data: data[::-1],
    "one less": lambda data: data[1:],
    "twice": lambda data: [data[0], *data[:-1]],
    "no index": lambda data: [{"embedding": entry["embedding"]} for entry in data],
    "no list": lambda data: {"0": data[0]},
    "ragged": first_embedding(lambda row: row[1:]),
    "narrow": lambda data: [entry | {"embedding": entry["embedding"][1:]} for entry in data],
    "empty": lambda data: [entry | {"embedding": []} for entry in data],
    "nan": first_embedding(lambda row: [float("nan"), *row[1:]]),
    "huge": first_embedding(lambda row: [1e300, *row[1:]]),
    "null": first_embedding(lambda row: [None, *row[1:]]),
    "words": first_embedding(lambda row: list(map(str, row))),
    "base64": first_embedding(lambda row: "AAAA"),
    "zero": first_embedding(lambda row: [0.0] * len(row)),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HARNESS_API_BASE", *api.KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(api, "FIRST_WAIT", 0.01)
    with Server() as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


def test_rows_are_placed_by_their_index_and_each_text_is_asked_for_once(server, tmp_path):
    texts = catalogue(30)
    server.script = ["turned"] * 9
    E = made(f"api:m@{server.url}[batch=8]", texts, tmp_path)
    expected = [np.zeros(6) if text is None else vector(text) for text in texts.texts]
    np.testing.assert_array_equal(E, expected)
    sent = [text for asked in server.asked for text in asked["input"]]
    assert sorted(sent) == sorted(set(texts.texts) - {None})
    assert max(len(asked["input"]) for asked in server.asked) == 8
    assert {asked["model"] for asked in server.asked} == {"m"}
    made(f"api:m@{server.url}[batch=8]", texts, tmp_path)
    assert len(sent) == sum(len(asked["input"]) for asked in server.asked)


def test_a_key_for_loopback_is_not_sent_to_a_proxy(server, tmp_path, monkeypatch):
    monkeypatch.setenv(api.KEYS[0], "secret")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Server() as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        made(f"api:m@{server.url}", different(3), tmp_path)
        proxy.shutdown()
    assert len(server.asked) == 1
    assert proxy.asked == []


def test_requests_a_minute_are_bounded_and_no_part_of_the_identity(server, tmp_path):
    start = time.monotonic()
    made(f"api:m@{server.url}[batch=8,per_minute=300]", different(32), tmp_path)
    assert len(server.asked) == 4
    assert time.monotonic() - start >= 3 * 60 / 300
    made(f"api:m@{server.url}", different(32), tmp_path)
    assert len(server.asked) == 4, "another pace is the same embedding"


def test_dimensions_are_asked_for_only_where_they_are_given(server, tmp_path):
    assert made(f"api:m@{server.url}[dimensions=4]", different(3), tmp_path).shape == (3, 4)
    assert made(f"api:m@{server.url}", different(3), tmp_path).shape == (3, 6)
    assert [asked.get("dimensions") for asked in server.asked] == [4, None]


@pytest.mark.parametrize("trouble", ["429", "500", "503", "408", "stall", "drip", "die", "not json"])
def test_what_may_pass_is_tried_again(server, tmp_path, monkeypatch, trouble):
    silent = trouble in ("stall", "drip")
    if silent:
        monkeypatch.setattr(api, "TIMEOUT", (5, 1))
    server.script = [trouble, trouble]
    E = made(f"api:m@{server.url}", different(3), tmp_path)
    np.testing.assert_array_equal(E, [vector(text) for text in different(3).texts])
    assert len(server.asked) == 3 or (silent and len(server.asked) > 3), "a busy machine may miss the limit again"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("429", "returned HTTP 429: no luck (3 tries)."),
        ("500", "returned HTTP 500: no luck (3 tries)."),
        ("stall", "timed out (3 tries)."),
        ("drip", "timed out (3 tries)."),
        ("die", "closed the connection during its reply (3 tries)."),
        ("not json", "sent a reply that is not JSON (3 tries)."),
    ],
)
def test_tries_have_an_end_and_what_came_before_is_kept(server, tmp_path, monkeypatch, trouble, said):
    monkeypatch.setattr(api, "TRIES", 3)
    if trouble in ("stall", "drip"):  # a loaded machine may be slow to answer
        monkeypatch.setattr(api, "TIMEOUT", (5, 1))
    word, texts = f"api:m@{server.url}[batch=2]", different(6)
    server.script = ["ok", trouble, trouble, trouble]
    heard = refusal(word, texts, tmp_path)
    assert said in heard
    assert "Earlier replies are kept; rerun the command to resume." in heard
    assert len(server.asked) == 4
    server.asked.clear()
    monkeypatch.setattr(api, "TIMEOUT", (10, 60))  # a loaded machine may take its time
    made(word, texts, tmp_path)
    assert [len(asked["input"]) for asked in server.asked] == [2, 2]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("400", "returned HTTP 400: no luck."),
        ("401", "returned HTTP 401: Incorrect API key provided: ***."),
        ("404", "returned HTTP 404: no luck."),
        ("307", "returned HTTP 307: no luck."),
        ("quota", "returned HTTP 429: pay first."),
    ],
)
def test_what_cannot_pass_is_refused_at_once_without_the_key(server, tmp_path, monkeypatch, trouble, said):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = [trouble]
    heard = refusal(f"api:m@{server.url}", different(3), tmp_path)
    assert said in heard
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("one less", "2 embeddings for 3 texts"),
        ("twice", "the indices are not 0 to 2, each once"),
        ("no index", "the indices are not 0 to 2, each once"),
        ("no list", "it has no list 'data' of objects"),
        ("ragged", "the embeddings have lengths 5, 6; all must have the same"),
        ("narrow", "the embeddings have 5 dimensions, not 6"),
        ("empty", "the embeddings have lengths 0"),
        ("nan", "an embedding contains NaN, infinity or a number too large for float32"),
        ("huge", "an embedding contains NaN, infinity or a number too large for float32"),
        ("null", "an embedding is not a list of numbers"),
        ("words", "an embedding is not a list of numbers"),
        ("base64", "an embedding is not a list of numbers"),
        ("zero", "an embedding is all zeros"),
    ],
)
def test_a_wrong_reply_is_refused_in_one_line_and_not_kept(server, tmp_path, trouble, said):
    server.script = ["ok", trouble]
    assert f"sent an invalid reply: {said}" in refusal(f"api:m@{server.url}[batch=3]", different(6), tmp_path)
    assert len(part_files(tmp_path)) == 1


def test_a_model_that_changes_between_two_runs_is_refused(server, tmp_path):
    server.script = ["ok", "400"]
    refusal(f"api:m@{server.url}[batch=3]", different(6), tmp_path)
    server.script = ["narrow"]
    said = refusal(f"api:m@{server.url}[batch=3]", different(6), tmp_path)
    assert "now returns rows of 5 dimensions, before of 6" in said
    assert str(part_files(tmp_path)[0].parent) in said


def test_a_server_that_is_not_there_is_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "TRIES", 2)
    assert "http://127.0.0.1:9/v1 cannot be reached" in refusal("api:m@http://127.0.0.1:9", different(3), tmp_path)


def test_a_server_may_say_how_long_to_wait_by_seconds_or_by_date(server, tmp_path, monkeypatch, capsys):
    slept: list[float] = []
    monkeypatch.setattr(api.time, "sleep", slept.append)
    for given, texts in (("7", 3), (format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True), 4)):
        server.script, server.retry_after = ["429"], given
        made(f"api:m@{server.url}", different(texts), tmp_path)
    slept = [seconds for seconds in slept if seconds]
    assert slept[0] == 7
    assert 90 < slept[1] <= 100
    assert "returned HTTP 429: no luck; waiting 7 s (try 1 of 7)." in capsys.readouterr().err
    server.script, server.retry_after = ["429"], "86400"
    assert "HTTP 429 and requests a wait of 86,400 s" in refusal(f"api:m@{server.url}", different(5), tmp_path)


def test_waits_double_up_to_a_limit_and_are_jittered(monkeypatch):
    waits = [[api._backoff(number) for _ in range(50)] for number in range(1, 12)]
    for number, drawn in enumerate(waits):
        top = min(2.0**number, 60.0)
        assert top / 2 <= min(drawn) < max(drawn) <= top


def test_a_key_comes_from_the_environment_and_stays_there(server, tmp_path, monkeypatch, capfd):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-second")
    made(f"api:m@{server.url}", different(3), tmp_path)
    monkeypatch.setenv("HARNESS_API_KEY", KEY)
    server.script = ["429"]
    made(f"api:n@{server.url}", different(3), tmp_path)
    for name in api.KEYS:
        monkeypatch.delenv(name)
    made(f"api:o@{server.url}", different(3), tmp_path)
    assert server.keys == ["Bearer sk-second", f"Bearer {KEY}", f"Bearer {KEY}", None]
    assert KEY not in "".join(capfd.readouterr())
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(written) > 6
    assert not any(KEY.encode() in path.read_bytes() for path in written)


def test_a_key_is_needed_by_openai_and_never_sent_unencrypted_to_another_machine(server, tmp_path, monkeypatch):
    assert "needs a key: set HARNESS_API_KEY or OPENAI_API_KEY" in refusal("api:m", different(3), tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = refusal("api:m@http://embeddings.example/v1", different(3), tmp_path)
    assert "OPENAI_API_KEY would be sent unencrypted to embeddings.example" in said
    monkeypatch.setenv("HARNESS_API_KEY", "a\nb")
    assert "characters that are not allowed in a key" in refusal(f"api:m@{server.url}", different(3), tmp_path)


def test_a_long_text_is_cut_by_estimate_and_no_character_is_halved(server, tmp_path, capsys):
    texts = Texts(["a", "b"], ["日本語日本語", "hat"], [0, 1], 2)
    made(f"api:m@{server.url}[max_tokens=3]", texts, tmp_path)
    assert server.asked[0]["input"] == ["日本語", "hat"]
    made(f"api:m@{server.url}[max_tokens=3]", Texts(["a", "b"], ["xé日本語日", "hat"], [0, 1], 2), tmp_path)
    assert server.asked[1]["input"] == ["xé日本", "hat"]
    assert "1 of 2 texts are longer than 3 estimated tokens, 9 bytes" in capsys.readouterr().err


def test_a_request_is_bounded_by_its_tokens_as_well(server, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "BATCH_TOKENS", 8)
    made(f"api:m@{server.url}", different(6), tmp_path)  # 9 bytes each, 3 tokens
    assert [len(asked["input"]) for asked in server.asked] == [2, 2, 2]


def test_a_killed_run_pays_only_for_what_it_has_not(server, tmp_path, capsys):
    word, texts = f"api:m@{server.url}[batch=2]", different(20)
    server.delay = 0.05
    killed_after(3, lambda: made(word, texts, tmp_path), tmp_path)
    kept = sum(len(np.load(path)) for path in part_files(tmp_path))
    time.sleep(0.1)  # the request under way when it was killed
    server.asked.clear()
    here = cast(api.Api, encoder(word, tmp_path))
    assert cost(here, texts, tmp_path, 1.0).texts == 20 - kept
    np.testing.assert_array_equal(made(word, texts, tmp_path), [vector(text) for text in texts.texts])
    assert sum(len(asked["input"]) for asked in server.asked) == 20 - kept
    assert cost(here, texts, tmp_path, 1.0) == api.EncodingCost(0, 0, 0.0)


def test_a_cost_is_counted_without_a_request_or_a_key(server, tmp_path):
    texts = Texts(list("abcd"), ["123456", "1234567", None, "123456"], [0, 1, 2, 3], 4)
    here = cast(api.Api, encoder(f"api:m@{server.url}", tmp_path))
    found = cost(here, texts, tmp_path, 0.02)
    assert (found.texts, found.tokens) == (2, 2 + 3)
    assert found.money == pytest.approx(5 * 0.02 / 1e6)
    short = cast(api.Api, encoder(f"api:m@{server.url}[max_tokens=1]", tmp_path))
    assert cost(short, texts, tmp_path, 1.0).tokens == 2
    assert server.asked == []
    assert not list(tmp_path.iterdir())


# --- what is told of an embedding


def test_missing_texts_and_a_rank_that_is_not_full_are_told(server, tmp_path):
    rng = np.random.default_rng(0)
    E = rng.standard_normal((300, 40)).astype(np.float32)
    E[:, [3, 17, 29]] = 0.0625  # as in MiniLM: coordinates that are the same everywhere
    E[[5, 9]] = 0
    np.save(tmp_path / "m.npy", E)
    texts = different(300)
    stored = made(f"file:{tmp_path}/m.npy", texts, tmp_path)
    notes = basis(stored, "key", tmp_path).info["notes"]
    assert "rank 37 of 40: the other 3 directions are empty or rounding noise" in notes
    assert "2 of 300 items have no embedding" in notes


def test_an_encoder_that_makes_too_few_rows_is_refused(tmp_path):
    class Lazy(_base.TextEncoder):
        keep_seconds = 0.0

        def job(self, distinct: list[str]) -> _base.Job:
            return _base.Job(distinct, lambda start: iter([np.ones((1, 2))]))

    with pytest.raises(HarnessError, match="returned 1 rows for 3 texts"):
        Lazy("", tmp_path).encode(different(3), lambda *_: None)
