"""Download a data set by name: over https, resumed, compared with its checksum, never unpacked."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from ekd_lite.data.checksums import sha256_of
from ekd_lite.data.registry import REGISTRY
from ekd_lite.files import locked, remove_lock
from ekd_lite.ops import nearest_name

_TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(name: str, folder: str | Path) -> Path:
    """Download a set by its name in `REGISTRY`.

    Raises:
        ValueError: an unknown name; a set that needs an application (where, how and the terms are
            in the message); or what `fetch` raises.
    """
    if name not in REGISTRY:
        raise ValueError(f"no data set {name!r}{nearest_name(name, REGISTRY)}")
    source = REGISTRY[name]
    if not source.url:
        raise ValueError(
            f"{name} cannot be downloaded from here. How: {source.how}. Terms: {source.terms}"
        )
    return fetch(
        source.url, Path(folder) / source.file, sha256=source.sha256, max_bytes=source.max_bytes
    )


def fetch(url: str, path: Path, *, sha256: str, max_bytes: int) -> Path:
    """Download one file, unless a good one is there.

    A download that breaks off leaves `NAME.part`, and the next call goes on from there. `path`
    itself is only ever a whole file with the right checksum. While one process downloads a file,
    others that want it wait.

    Args:
        url: https only, redirects included.
        path: the file to write.
        sha256: its checksum, hexadecimal.
        max_bytes: size above which nothing more is read.

    Raises:
        ValueError: an address that is not https, a checksum that differs, a file too large.
        ConnectionError: the server says no or breaks off; what to do is in the message.
    """
    if path.is_file() and sha256_of(path) == sha256:
        remove_lock(path)  # of a download that was killed when the file was whole already
        return path
    _check_address(url)
    part = path.with_name(f"{path.name}.part")
    for file in (path, part):
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is there and is no file: move it, or name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if path.is_file() and sha256_of(path) == sha256:  # another process was faster
            return path
        return _fetch(url, path, part, sha256, max_bytes)


def _fetch(url: str, path: Path, part: Path, sha256: str, max_bytes: int) -> Path:
    try:
        _read(url, part, max_bytes)
    except (OSError, HTTPException) as error:
        kept = f"; the {part.stat().st_size:,} bytes so far are kept" if part.is_file() else ""
        raise ConnectionError(f"{url}: {error}{kept}. Try again later") from error
    found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise ValueError(
            f"{url} is not the file that was expected: sha256 {found} instead of {sha256}. It was "
            "deleted; the file has changed at its source, or someone changed it on its way"
        )
    part.replace(path)
    return path


def _check_address(url: str, *, coming_from: str | None = None) -> None:
    parts = urllib.parse.urlsplit(url)
    # http to this machine itself is what the tests use. No server elsewhere may send us there.
    if coming_from is not None and urllib.parse.urlsplit(coming_from).scheme != "http":
        if parts.scheme != "https":
            raise ValueError(f"{coming_from} leads to {url}: only https is used")
    elif parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"{url}: only https is used")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str
    ) -> Any:
        _check_address(newurl, coming_from=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(url: str, part: Path, max_bytes: int) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "ekd-lite"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        response = opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing left to send: all of it is here, and will be compared
            return
        raise
    with response:
        _write(response, part, have, max_bytes, url)


def _write(response: HTTPResponse, part: Path, have: int, max_bytes: int, url: str) -> None:
    answered = response.headers.get("Content-Range", "")
    resumed = response.status == 206 and answered.startswith(f"bytes {have}-")
    written = have if resumed else 0  # a server that does not resume sends it from the beginning
    length = response.headers.get("Content-Length", "")
    expected = written + int(length) if length.isdigit() else None
    with part.open("ab" if resumed else "wb") as file:
        # What arrived stays, should the connection break in the middle of a block.
        while block := response.read1(_BLOCK):
            written += len(block)
            if written > max_bytes:
                file.close()
                part.unlink()
                raise ValueError(f"{url} is larger than {max_bytes:,} bytes: not downloaded")
            file.write(block)
    if expected is not None and written < expected:
        raise ConnectionError(f"broke off after {written:,} of {expected:,} bytes")
