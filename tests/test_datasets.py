"""Fetching over a real socket on loopback: cuts, lies, pages, proxies, hostile archives."""

import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit import datasets
from medkit.datasets import Dataset, RemoteFile, fetch, registry, unpack
from medkit.errors import DataError
from medkit.files import shipped

CONTENT = bytes(range(256)) * 1024  # 256 KiB


class Handler(http.server.BaseHTTPRequestHandler):
    "Answers each request with the next of the server's scripted answers, the last one for ever."

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Range"), dict(self.headers)))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def log_message(self, *args):
        pass

    def send(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Content_Type": "application/octet-stream", **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def whole(handler):
    "What an ordinary server does, Range included."
    wanted = handler.headers.get("Range")
    if not wanted:
        return handler.send(200, CONTENT)
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    handler.send(206, CONTENT[start:], Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")


def ignores_range(handler):
    handler.send(200, CONTENT)


def cut(handler):
    "Promise everything, send 100,000 bytes, hang up."
    handler.send(200, CONTENT[:100_000], Content_Length=str(len(CONTENT)))
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def status(code, body=b"", **headers):
    return lambda handler: handler.send(code, body, **headers)


def sends(body, **headers):
    return status(200, body, **headers)


@pytest.fixture
def server():
    "A server on loopback; `server.answers` is its script and `server.seen` what it was asked."
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.answers, found.seen = [whole], []
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def entries(server):
    return entries_at(f"http://127.0.0.1:{server.server_port}/record.bin")


def entries_at(url, content=CONTENT):
    file = RemoteFile("deep/record.bin", url, len(content), hashlib.sha256(content).hexdigest())
    return {"record": Dataset("record", "signals", "", "CC0", "https://example.invalid", "", "", files=(file,))}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("MEDKIT_DATA", "MEDKIT_OFFLINE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "_PAUSES_S", (0, 0.01, 0.01, 0.01))


def finished(tmp_path):
    "Every file below the cache, hidden pieces and locks left out."
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_fetches_verifies_and_then_needs_no_net(server, entries):
    folder = fetch("record", entries=entries)
    assert (folder / "deep" / "record.bin").read_bytes() == CONTENT
    assert fetch("record", entries=entries, offline=True) == folder
    assert len(server.seen) == 1


def test_own_folder_comes_before_cache_and_net(server, entries, monkeypatch, tmp_path):
    own = tmp_path / "own" / "signals" / "record" / "deep"
    own.mkdir(parents=True)
    (own / "record.bin").write_bytes(CONTENT)
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path / "own"))
    assert fetch("record", entries=entries) == own.parent
    assert server.seen == []


def test_wrong_file_in_own_folder_is_an_error_and_not_replaced(server, entries, monkeypatch, tmp_path):
    own = tmp_path / "own" / "signals" / "record" / "deep"
    own.mkdir(parents=True)
    (own / "record.bin").write_bytes(b"mine")
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path / "own"))
    with pytest.raises(DataError) as caught:
        fetch("record", entries=entries)
    assert caught.value.reason == "checksum_mismatch" and (own / "record.bin").read_bytes() == b"mine"
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not_found"):
        fetch("record", entries=entries)


def test_resumes_after_a_cut_with_only_the_missing_bytes(server, entries):
    server.answers = [cut, whole]
    folder = fetch("record", entries=entries)
    assert (folder / "deep" / "record.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.seen] == [None, "bytes=100000-"]


def test_resumes_in_a_later_run(server, entries, tmp_path):
    server.answers = [cut, status(404)]
    with pytest.raises(DataError, match="download_failed"):
        fetch("record", entries=entries)
    assert finished(tmp_path) == []
    server.answers = [whole]
    fetch("record", entries=entries)
    assert server.seen[-1][1] == "bytes=100000-"


def test_begins_anew_where_the_server_ignores_range(server, entries):
    server.answers = [cut, ignores_range]
    assert (fetch("record", entries=entries) / "deep" / "record.bin").read_bytes() == CONTENT


def test_begins_anew_where_the_piece_does_not_fit(server, entries, tmp_path):
    folder = tmp_path / "cache" / "signals"
    folder.mkdir(parents=True)
    (folder / f".{hashlib.sha256(CONTENT).hexdigest()}.part").write_bytes(b"from somewhere else")
    assert (fetch("record", entries=entries) / "deep" / "record.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.seen] == ["bytes=19-", None]


@pytest.mark.parametrize("answer", [status(416), status(206, CONTENT[5:], Content_Range="bytes 5-9/10")], ids=["416", "other piece"])
def test_begins_anew_where_the_server_cannot_resume(server, entries, answer):
    server.answers = [cut, answer, whole]
    assert (fetch("record", entries=entries) / "deep" / "record.bin").read_bytes() == CONTENT
    assert server.seen[-1][1] is None


def test_tries_again_after_503_and_gives_up_at_last(server, entries, tmp_path):
    server.answers = [status(503), status(429, Retry_After="0"), whole]
    fetch("record", entries=entries)
    server.answers, server.seen[:] = [status(503)], []
    (tmp_path / "cache" / "signals" / "record" / "deep" / "record.bin").unlink()
    with pytest.raises(DataError, match="503") as caught:
        fetch("record", entries=entries)
    assert caught.value.reason == "download_failed" and len(server.seen) == 4


def test_404_is_not_tried_again(server, entries):
    server.answers = [status(404, b"<html>not found</html>", Content_Type="text/html")]
    with pytest.raises(DataError) as caught:
        fetch("record", entries=entries)
    assert caught.value.reason == "download_failed" and len(server.seen) == 1


@pytest.mark.parametrize("answer,reason", [
    (sends(CONTENT[:-1] + b"!"), "checksum_mismatch"),
    (sends(CONTENT + b"more"), "checksum_mismatch"),
    (sends(CONTENT + b"more", Content_Length=None), "checksum_mismatch"),
    (sends(CONTENT[:50]), "checksum_mismatch"),
    (sends(CONTENT, Content_Length="999999999999"), "checksum_mismatch"),
    (sends(b"<html><title>Access denied by proxy</title>", Content_Type="text/html; charset=utf-8"), "blocked_page"),
    (sends(b"\n <!DOCTYPE html><html><title>Log in</title>" + b" " * len(CONTENT)), "blocked_page"),
    (status(403, b"<html>", Content_Type="text/html"), "blocked_page"),
    (status(403), "download_failed"),
    (status(302, Location="file:///etc/passwd"), "download_failed"),
], ids=["wrong bytes", "long", "long unannounced", "short", "size lie", "page", "page in disguise", "403 page", "403", "to a file"])
def test_what_is_not_the_file_is_never_kept(server, entries, tmp_path, answer, reason):
    server.answers = [answer]
    with pytest.raises(DataError) as caught:
        fetch("record", entries=entries)
    assert caught.value.reason == reason
    assert finished(tmp_path) == []


def test_an_endless_answer_is_left_at_once(server, entries):
    sent = []

    def endless(handler):
        handler.send(200, b"", Content_Length=None)
        while len(sent) < 2000:  # 125 MiB
            handler.wfile.write(b"x" * 65536)
            sent.append(1)

    server.handle_error = lambda *args: None
    server.answers = [endless]
    with pytest.raises(DataError, match=f"more than {len(CONTENT)} bytes"):
        fetch("record", entries=entries)
    assert len(sent) < 500


def test_page_is_named_by_its_title(server, entries):
    server.answers = [sends(b"<html><head><title>Guest Wi-Fi login</title>", Content_Type="text/html")]
    with pytest.raises(DataError, match="Guest Wi-Fi login"):
        fetch("record", entries=entries)


def test_nothing_answers(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DataError) as caught:
        fetch("record", entries=entries_at(f"http://127.0.0.1:{port}/x"))
    assert caught.value.reason == "offline"


@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_patience_ends(how, tmp_path, monkeypatch):
    "One server accepts and says nothing, another sends a byte now and then."
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            connection, _ = listener.accept()
            try:
                for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000 if how == "dripping" else b"":
                    connection.send(bytes([letter]))
                    time.sleep(0.02)
                time.sleep(3)
            except OSError:
                pass
        threading.Thread(target=serve, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(DataError) as caught:
            fetch("record", entries=entries_at(f"http://127.0.0.1:{listener.getsockname()[1]}/x"), timeout_s=0.5)
    assert caught.value.reason in ("download_failed", "offline") and time.monotonic() - began < 2


def test_offline_by_argument_and_by_environment(server, entries, monkeypatch):
    with pytest.raises(DataError, match="offline"):
        fetch("record", entries=entries, offline=True)
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    with pytest.raises(DataError, match="offline"):
        fetch("record", entries=entries)
    assert server.seen == []
    fetch("record", entries=entries, offline=False)


def test_proxy_of_the_environment_is_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    fetch("record", entries=entries_at("http://data.example.invalid/record.bin"))
    assert server.seen[0][0] == "http://data.example.invalid/record.bin"


def test_https_goes_through_a_connect_to_the_proxy(monkeypatch):
    "The proxy sees CONNECT host:443 with its own password, and refuses."
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        def serve():
            for _ in range(2):
                connection, _address = proxy.accept()
                seen.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                connection.close()
        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{proxy.getsockname()[1]}")
        with pytest.raises(DataError, match="407") as caught:
            fetch("record", entries=entries_at("https://data.example.invalid/record.bin"))
    assert seen[0].startswith(b"CONNECT data.example.invalid:443") and b"Proxy-Authorization: Basic" in seen[0]
    assert "secret" not in str(caught.value)


def test_unknown_certificate_is_refused_and_a_named_one_accepted(server, monkeypatch, tmp_path):
    "A server with its own certificate: refused, until the environment names that certificate."
    import ssl
    import subprocess

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl cannot make a certificate here: {error}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found = entries_at(f"https://127.0.0.1:{server.server_port}/record.bin")
    with pytest.raises(DataError, match="certificate") as caught:
        fetch("record", entries=found)
    assert caught.value.reason == "download_failed" and server.seen == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert (fetch("record", entries=found) / "deep" / "record.bin").read_bytes() == CONTENT
    (tmp_path / "cache" / "signals" / "record" / "deep" / "record.bin").unlink()
    server.answers = [status(302, Location="http://127.0.0.1:9/record.bin")]
    with pytest.raises(DataError, match="without encryption"):
        fetch("record", entries=found)


def test_bundle_that_is_no_bundle_is_named(entries, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    with pytest.raises(DataError, match="REQUESTS_CA_BUNDLE"):
        fetch("record", entries=entries)


def test_two_at_once_download_once(server, entries):
    folders = []
    threads = [threading.Thread(target=lambda: folders.append(fetch("record", entries=entries))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1 and len(folders) == 4 and len(server.seen) == 1


def test_progress_reaches_the_whole(server, entries):
    steps = []
    fetch("record", entries=entries, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and steps == sorted(steps)


def test_cache_that_cannot_be_written(entries, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="not_writable"):
        fetch("record", entries=entries)


def test_every_fetched_set_lists_its_files_and_licence():
    for name, entry in registry().items():
        assert entry.name == name and entry.licence and entry.cite and entry.layout and entry.source
        if entry.how == "fetched":
            assert entry.files and all("/raw.githubusercontent.com/" in file.url for file in entry.files)


def test_manual_sets_say_what_to_put_where(tmp_path):
    for name, entry in registry().items():
        if entry.manual:
            with pytest.raises(DataError) as caught:
                fetch(name)
            assert caught.value.reason == "manual_download" and entry.source in caught.value.hint
            assert str(tmp_path / "cache" / entry.kind / name) in caught.value.hint


def test_manual_set_is_found_where_it_was_put(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path))
    folder = tmp_path / "imaging" / "msd_pancreas"
    for name in ("imagesTr/pancreas_001.nii.gz", "labelsTr/pancreas_001.nii.gz", "dataset.json"):
        with pytest.raises(DataError, match="manual_download"):
            fetch("msd_pancreas")
        path = folder / "Task07_Pancreas" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert fetch("msd_pancreas") == folder


def test_real_recordings_match_the_registry(real_data, monkeypatch):
    monkeypatch.setenv("MEDKIT_DATA", str(real_data))
    for name in ("chair_bcg_ecg_rwth", "totalsegmentator", "li2024_rr_reference"):
        assert fetch(name, offline=True) == real_data / registry()[name].kind / name


REGISTRY = '[x]\nkind = "signals"\nwhat = ""\nlicence = ""\nsource = ""\nlayout = ""\ncite = ""\n'


@pytest.mark.parametrize("text,checksums", [
    ("[x", ""), ("x = 1", ""), ("[x]", ""), (REGISTRY, ""), (REGISTRY + "manual = true", ""),
    (REGISTRY + 'url = "http://example.org/"', "a\t1\tb"), (REGISTRY + 'url = "ftp://example.org/"', f"{'0' * 64}\t1\tb"),
    (REGISTRY + 'url = "https://example.org/"', f"{'0' * 64}\t1\t../b"), (REGISTRY + 'url = "https://example.org/"', "zz\t1\tb"),
    (REGISTRY + 'url = "https://example.org/"', f"{'0' * 64}\tmany\tb"), (REGISTRY + 'surprise = 1\nurl = "https://example.org/"', f"{'0' * 64}\t1\tb"),
])
def test_bad_registry_is_refused(tmp_path, text, checksums):
    (tmp_path / "checksums").mkdir()
    (tmp_path / "checksums" / "x.tsv").write_text(checksums)
    (tmp_path / "datasets.toml").write_text(text)
    with pytest.raises(DataError) as caught:
        registry(tmp_path / "datasets.toml")
    assert caught.value.reason == "bad_registry"


def make_zip(path, members, **fields):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, body)
    return path


def make_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, fields, body in members:
            info = tarfile.TarInfo(name)
            for field, value in {"size": len(body), **fields}.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(body))
    return path


@pytest.mark.parametrize("make", [
    lambda path: make_zip(path, [("ok.txt", b"1"), ("../../slip.txt", b"2")]),
    lambda path: make_zip(path, [("/slip.txt", b"2")]),
    lambda path: make_zip(path, [("C:slip.txt", b"2")]),
    lambda path: make_zip(path, [("link", b"/etc/passwd")], external_attr=0o120777 << 16),
    lambda path: make_zip(path, [("bomb", b"\0" * (8 << 20))]),
    lambda path: make_zip(path, [("one", b"\0" * (3 << 20)), ("two", b"\0" * (3 << 20))]),
    lambda path: make_zip(path, [(f"{number}", b"") for number in range(200)]),
    lambda path: make_tar(path, [("../slip.txt", {}, b"1")]),
    lambda path: make_tar(path, [("out", {"type": tarfile.SYMTYPE, "linkname": ".."}, b""), ("out/slip.txt", {}, b"1")]),
    lambda path: make_tar(path, [("hard", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}, b"")]),
    lambda path: make_tar(path, [("pipe", {"type": tarfile.FIFOTYPE}, b"")]),
    lambda path: make_tar(path, [("disk", {"type": tarfile.BLKTYPE}, b"")]),
    lambda path: make_tar(path, [("bomb", {}, b"\0" * (8 << 20))]),
    lambda path: make_tar(path, [("x", {"pax_headers": {"comment": "a" * (8 << 20)}}, b"")]),
    lambda path: make_tar(path, [(f"{number}", {}, b"") for number in range(200)], "w:xz"),
], ids=["zip slip", "zip absolute", "zip drive", "zip link", "zip bomb", "zip bomb in two", "zip many", "tar slip", "tar link out",
        "tar hard link", "tar pipe", "tar device", "tar bomb", "tar header bomb", "tar many"])
def test_hostile_archive_leaves_nothing(tmp_path, make):
    home = tmp_path / "home"
    home.mkdir()
    archive = make(home / "archive")
    with pytest.raises(DataError) as caught:
        unpack(archive, home / "out", max_members=100, max_bytes=4 << 20)
    assert caught.value.reason in ("unsafe_archive", "unsafe_path")
    assert os.listdir(home) == ["archive"] and os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_honest_tar_is_unpacked_without_its_modes(tmp_path, mode):
    members = [("./", {"type": tarfile.DIRTYPE}, b""), ("./a/b.txt", {"mode": 0o4777, "uid": 0}, b"1"), ("c.txt", {}, b"2")]
    folder = unpack(make_tar(tmp_path / "archive", members, mode), tmp_path / "out")
    assert (folder / "a" / "b.txt").read_bytes() == b"1" and (folder / "c.txt").read_bytes() == b"2"
    assert not (folder / "a" / "b.txt").stat().st_mode & 0o7000


def test_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="already_exists"):
        unpack(make_zip(tmp_path / "archive", [("a", b"")]), tmp_path / "out")


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"BZh9", b"\xfd7zXZ\x00"]))
def test_any_bytes_are_unpacked_or_refused(tmp_path_factory, data, head):
    home = tmp_path_factory.mktemp("any")
    (home / "archive").write_bytes(head + data)
    try:
        unpack(home / "archive", home / "out", max_bytes=1 << 20)
    except DataError:
        assert os.listdir(home) == ["archive"]


def test_a_shipped_set_that_was_changed_is_refused(tmp_path, monkeypatch):
    whole = fetch("medkit_bcg_simulated")
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    table = tmp_path / "bcg_simulated.csv"
    table.write_bytes(table.read_bytes()[:-2] + b"9\n")
    monkeypatch.setattr("medkit.datasets.shipped", lambda name: tmp_path if name == "data/samples" else shipped(name))
    with pytest.raises(DataError) as refused:
        fetch("medkit_bcg_simulated")
    assert refused.value.reason == "checksum_mismatch" and "bcg_simulated.csv" in str(refused.value)


def test_bombs_in_archive_formats_without_limits_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("zeros", bytes(50 << 20))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * (40 << 20)}) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    for name in ("b.zip", "b.tar.gz"):
        with pytest.raises(DataError) as refused:
            unpack(tmp_path / name, tmp_path / "out", max_bytes=1 << 20)
        assert refused.value.reason == "unsafe_archive" and not (tmp_path / "out").exists()


def test_a_store_is_always_a_file(tmp_path, monkeypatch):
    from medkit.stages import Store

    monkeypatch.chdir(tmp_path)
    Store(":memory:").append("note", "a", {"text": "kept"})
    assert [record.body for record in Store(":memory:").records()] == [{"text": "kept"}]
