"""Downloads against a server on this machine: good, cut, tampered, redirected, too large."""

import hashlib
import http.server
import random
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ekd_lite.__main__ import main
from ekd_lite.data import download as module
from ekd_lite.data.download import download, fetch
from ekd_lite.data.registry import REGISTRY, Source

GOOD = random.Random(0).randbytes(300_000)  # noqa: S311
SHA = hashlib.sha256(GOOD).hexdigest()
LIMIT = 1_000_000


class Server(http.server.BaseHTTPRequestHandler):
    """Behaves as the first part of the path says."""

    asked: list = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = self.path.split("/")[1]
        start = self.headers.get("Range", "")
        self.asked.append((kind, start))
        if kind == "missing":
            return self.send_error(404)
        if kind in ("redirect-http", "redirect-file", "redirect-good"):
            to = {
                "redirect-http": "http://example.invalid/x",
                "redirect-file": "file:///etc/passwd",
            }
            port = self.server.server_address[1]
            self.send_response(302)
            self.send_header("Location", to.get(kind, f"http://127.0.0.1:{port}/good/x"))
            self.end_headers()
            return None
        body = GOOD
        if kind == "slow":
            time.sleep(0.3)
        if kind == "tampered":
            body = GOOD[:1000] + bytes([GOOD[1000] ^ 1]) + GOOD[1001:]
        if kind == "large":
            body = GOOD * 4
        begin = 0
        if start and kind != "no-range":
            begin = int(start.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return self.send_error(416)
            self.send_response(206)
            lie = 5 if kind == "wrong-range" else 0
            self.send_header("Content-Range", f"bytes {begin + lie}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[begin:] if kind != "wrong-range" else body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut" and not start:
            body = body[:100_000]
        self.wfile.write(body)
        return None


@pytest.fixture(scope="module")
def server():
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def get(url, path, **changes):
    options: dict[str, Any] = {"sha256": SHA, "max_bytes": LIMIT} | changes
    return fetch(url, path, **options)


@pytest.mark.parametrize("kind", ["good", "redirect-good", "no-range"])
def test_good_files_arrive_whole_and_once(server, tmp_path, kind):
    path = tmp_path / "new" / "x.tgz"
    assert get(f"{server}/{kind}/x", path) == path
    assert path.read_bytes() == GOOD
    assert [p.name for p in path.parent.iterdir()] == ["x.tgz"]
    asked = len(Server.asked)
    get(f"{server}/{kind}/x", path)
    assert len(Server.asked) == asked  # a good file is not asked for again


def test_a_lock_that_was_left_when_the_file_was_whole_goes(server, tmp_path):
    (tmp_path / "x").write_bytes(GOOD)
    (tmp_path / ".x.lock").touch()
    get(f"{server}/good/x", tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_download_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    path = tmp_path / "x.tgz"
    with pytest.raises(ConnectionError, match=r"100,000 bytes so far are kept\. Try again"):
        get(f"{server}/cut/x", path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tgz.part"]
    get(f"{server}/cut/x", path)
    assert Server.asked[-1] == ("cut", "bytes=100000-")
    assert path.read_bytes() == GOOD
    assert [p.name for p in tmp_path.iterdir()] == ["x.tgz"]


@pytest.mark.parametrize("kind", ["no-range", "wrong-range"])
def test_a_server_that_does_not_resume_starts_again(server, tmp_path, kind):
    (tmp_path / "x.part").write_bytes(b"from another day" * 100)
    get(f"{server}/{kind}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == GOOD


def test_all_of_it_was_there_already(server, tmp_path):
    (tmp_path / "x.part").write_bytes(GOOD)
    get(f"{server}/good/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("tampered", ValueError, "is not the file that was expected: sha256"),
        ("large", ValueError, "is larger than 1,000,000 bytes"),
        ("missing", ConnectionError, "404"),
        ("redirect-http", ValueError, "only https is used"),
        ("redirect-file", (ValueError, ConnectionError), "only https is used|not allowed"),
    ],
)
def test_what_is_refused_leaves_the_good_file_and_no_rest(server, tmp_path, kind, error, message):
    other = tmp_path / "x"
    other.write_bytes(b"an older file, whose checksum differs")
    for _ in range(10):  # 50 in all
        with pytest.raises(error, match=message):
            get(f"{server}/{kind}/x", other)
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
        assert other.read_bytes() == b"an older file, whose checksum differs"


def test_a_part_of_something_else_is_found_out(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    with pytest.raises(ValueError, match="is not the file that was expected"):
        get(f"{server}/good/x", tmp_path / "x")
    get(f"{server}/good/x", tmp_path / "x")  # the part is gone, so that this one is whole


@pytest.mark.parametrize("to", ["http://127.0.0.1:9/x", "http://localhost/x", "file:///x"])
def test_no_server_leads_from_https_to_this_machine(to):
    request = urllib.request.Request("https://example.invalid/x")
    with pytest.raises(
        ValueError, match=r"https://example.invalid/x leads to .*only https is used"
    ):
        module._SafeRedirects().redirect_request(request, None, 302, "Found", {}, to)
    good = "https://example.invalid/y"
    followed = module._SafeRedirects().redirect_request(request, None, 302, "Found", {}, good)
    assert followed.full_url == good


def test_two_downloads_of_one_file_ask_once(server, tmp_path):
    asked = len(Server.asked)
    with ThreadPoolExecutor(2) as pool:  # a lock is of an open file: threads wait as processes do
        done = [pool.submit(get, f"{server}/slow/x", tmp_path / "x") for _ in range(2)]
    assert [future.result() for future in done] == [tmp_path / "x"] * 2
    assert (tmp_path / "x").read_bytes() == GOOD
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert len(Server.asked) == asked + 1


@pytest.mark.parametrize("name", ["x", "x.part"])
def test_what_is_no_file_is_not_written_to(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="is there and is no file"):
        get("http://127.0.0.1:9/x", tmp_path / "x")


@pytest.mark.parametrize(
    "url", ["http://example.invalid/x", "ftp://x/y", "file:///etc/passwd", "x"]
)
def test_other_addresses_are_not_even_tried(url, tmp_path):
    with pytest.raises(ValueError, match="only https is used"):
        get(url, tmp_path / "x")


def test_nobody_answers(tmp_path):
    with pytest.raises(ConnectionError, match="Try again later"):
        get("http://127.0.0.1:9/x", tmp_path / "x")


def test_by_name(server, tmp_path, monkeypatch, capsys):
    source = Source("free", "a test", "x.bin", f"{server}/good/x", SHA, LIMIT)
    monkeypatch.setitem(REGISTRY, "test", source)
    assert download("test", tmp_path).read_bytes() == GOOD
    assert main(["data", "download", "--name", "test", "--out", str(tmp_path)]) == 0
    assert "Terms: free" in capsys.readouterr().out
    assert main(["data", "download", "--name", "ms1mv3"]) == 2
    text = capsys.readouterr().err
    assert "cannot be downloaded from here" in text
    assert "MS-Celeb-1M, which its maker withdrew" in text
    with pytest.raises(ValueError, match="did you mean 'lfw'"):
        download("lwf", tmp_path)


def test_every_address_has_a_checksum_and_every_set_its_terms():
    for source in REGISTRY.values():
        assert source.terms
        assert source.how
        if source.url:
            assert source.url.startswith("https://")
            assert len(bytes.fromhex(source.sha256)) == 32
            assert 0 < source.max_bytes < 10**9
            assert source.file
        else:
            assert not source.sha256
