"""Every fault provoked for real on loopback or in a namespace of its own: does the doctor name it, and is there a fix?

The interface is what a learner has: environment variables, configuration files, files on disk. The network tests ask local servers
only, with certificates that are made here.
"""

import contextlib
import datetime
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from medkit import doctor
from medkit.checks import Check
from medkit.network import FAULTS, Target, ask_all, check_clock, judge_answer, network_targets

OFF = re.compile(  # whatever switches the check of certificates off
    r"verify\s*=\s*(False|0)|--trusted-host|--allow-insecure-host|PYTHONHTTPSVERIFY|GIT_SSL_NO_VERIFY|NODE_TLS_REJECT|ssl_verify|sslverify"
    r"|strict-ssl|--no-check-certificate|--insecure|CERT_NONE|_create_unverified|(^|\s)curl\s.*-k\b|\bINSECURE_HOST", re.IGNORECASE)
SECRET = "hunter2-s3cret"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    "A machine on which nothing is set."
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("PIP_", "UV_", "SSL_CERT", "MEDKIT_", "HF_", "JUPYTER_")) or name in (
                "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "TMPDIR", "GIT_SSL_NO_VERIFY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("MEDKIT_CACHE", str(tmp_path / "cache"))


# ---- servers ----


class Handler(http.server.BaseHTTPRequestHandler):
    "Answers every request with the server's `answer`."

    def do_GET(self):
        self.server.answer(self)

    def do_CONNECT(self):
        self.server.answer(self)

    def log_message(self, *words):
        "Say nothing."

    def send(self, status, body=b"", date=None, **headers):
        self.send_response_only(status)
        self.send_header("Date", formatdate(date, usegmt=True))
        for name, value in {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "CONNECT" or status != 200:
            self.wfile.write(body)


GOOD = lambda handler: handler.send(200, b'{"name": "pip"}')  # noqa: E731
PAGE = b"<!DOCTYPE html><html><head><title>Access denied by policy 7</title></head></html>"


@contextlib.contextmanager
def web(answer, certificate=None):
    "A server on loopback; with a certificate it speaks TLS."
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.answer, server.handle_error = True, answer, lambda *words: None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def through_to(port):
    "A proxy that passes every tunnel on to one port here, whatever was asked for: it stands between."

    def answer(handler):
        with socket.create_connection(("127.0.0.1", port), 5) as far:
            handler.send_response_only(200)
            handler.end_headers()
            handler.wfile.flush()
            near = handler.connection
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join(2)
        handler.close_connection = True
    return answer


def pump(one, other):
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def silent():
    "A port that takes connections and never says a word."
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def chatter(words):
    "A port that says `words` to whoever connects, and then waits."
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    near, _ = server.accept()
                    threading.Thread(target=words, args=(near,), daemon=True).start()
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def drip(near):
    "One byte every tenth of a second, for ever: no timeout of a socket ever strikes."
    with contextlib.suppress(OSError):
        near.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            near.sendall(b"a")
            time.sleep(0.1)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def company():
    "The authority of a company that opens its people's traffic."
    return trustme.CA(organization_name="Clinic Proxy Authority")


@pytest.fixture(scope="session")
def elsewhere():
    return trustme.CA(organization_name="Another Authority")


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


# ---- faults of the net: what is arranged, the line, its state, words in it, words in its fix ----

NET = {}


def fault(line, state, words, fix):
    "Register a function that arranges a fault of the net."
    def register(arrange):
        NET[arrange.__name__] = (arrange, line, state, words, fix)
        return arrange
    return register


def index_at(monkeypatch, port, scheme="http", host="127.0.0.1"):
    monkeypatch.setenv("PIP_INDEX_URL", f"{scheme}://{host}:{port}/simple")


def proxy_at(monkeypatch, port, login="", scheme="http"):
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"{scheme}://{login}127.0.0.1:{port}")
    if "PIP_INDEX_URL" not in os.environ:
        monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")  # nothing leaves this machine


def issued(authority, *names, from_days=-1, to_days=30):
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    return authority.issue_cert(*(names or ("127.0.0.1",)), not_before=now + from_days * day, not_after=now + to_days * day)


def trusted(monkeypatch, authority, folder, *variables):
    "A file that holds the authority, named by `variables`."
    file = folder / f"authority-{len(variables)}-{'-'.join(variables)}.pem"
    authority.cert_pem.write_to_path(str(file))
    for name in variables:
        monkeypatch.setenv(name, str(file))
    return file


@fault("package index", "fail", "no address is known for no-such-host.invalid", "HTTPS_PROXY")
def dns(monkeypatch, **_):
    monkeypatch.setenv("PIP_INDEX_URL", "https://no-such-host.invalid/simple")


@fault("package index", "fail", "refuses the connection", "HTTPS_PROXY")
def refused(monkeypatch, **_):
    index_at(monkeypatch, closed_port())


@fault("package index", "fail", "does not answer in time", "firewall")
def black_hole(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(silent()))


@fault("package index", "fail", "does not answer in time", "firewall")
def black_hole_where_encryption_is_expected(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(silent()), "https")


@fault("package index", "fail", "does not answer in time", "firewall")
def a_byte_now_and_then(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(chatter(drip)))


@fault("model download", "warn", "407", "USER:PASSWORD@127.0.0.1")
def proxy_asks_for_a_password(monkeypatch, stack, **_):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(407, PAGE, Proxy_Authenticate='Basic realm="clinic"'))))


@fault("package index", "fail", "refuses the ones that were given", "%40")
def proxy_refuses_the_password(monkeypatch, stack, **_):
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(407, Proxy_Authenticate="Basic"))), f"nurse:{SECRET}@")


@fault("package index", "fail", "NTLM", "px-proxy")
def proxy_speaks_ntlm_only(monkeypatch, stack, **_):
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(407, Proxy_Authenticate="NTLM"))))


@fault("package index", "fail", "407", "HTTP")
def proxy_asks_for_a_password_on_plain_http(monkeypatch, stack, **_):
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(407, PAGE, Proxy_Authenticate="Basic"))))


@fault("model download", "warn", "does not let through to hub.invalid", "allow hub.invalid")
def proxy_forbids(monkeypatch, stack, **_):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(403, PAGE))))


@fault("package index", "fail", "cannot reach index.invalid", "support")
def proxy_cannot_reach(monkeypatch, stack, **_):
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(502))))


@fault("package index", "fail", "refuses the connection", "it works without the proxy: unset HTTP_PROXY http_proxy")
def proxy_is_dead_and_not_needed(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(GOOD)))
    proxy_at(monkeypatch, closed_port())


@fault("package index", "fail", "no address is known for the proxy no-such-proxy.invalid", "VPN")
def proxy_has_no_address(monkeypatch, **_):
    monkeypatch.setenv("HTTPS_PROXY", f"http://nurse:{SECRET}@no-such-proxy.invalid:3128")
    monkeypatch.setenv("PIP_INDEX_URL", "https://no-such-host.invalid/simple")


@fault("package index", "fail", "the proxy 127.0.0.1", "VPN")
def proxy_is_a_black_hole(monkeypatch, stack, **_):
    monkeypatch.setenv("PIP_INDEX_URL", "https://no-such-host.invalid/simple")
    proxy_at(monkeypatch, stack.enter_context(silent()))


@fault("package index", "fail", "does not speak as a proxy does", "port")
def proxy_is_an_ssh_server(monkeypatch, stack, **_):
    proxy_at(monkeypatch, stack.enter_context(chatter(lambda near: near.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"))))
    monkeypatch.setenv("PIP_INDEX_URL", "https://no-such-host.invalid/simple")


@fault("package index", "fail", "speaks plain http", "http://127.0.0.1")
def proxy_with_the_wrong_scheme(monkeypatch, stack, **_):
    monkeypatch.setenv("PIP_INDEX_URL", "https://no-such-host.invalid/simple")
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(200))), scheme="https")


@fault("package index", "fail", "SOCKS", "http proxy")
def proxy_is_socks(monkeypatch, **_):
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")


@fault("package index", "fail", "unknown here: 'Clinic Proxy Authority'", "company.pem")
def intercepted_by_an_unknown_authority(monkeypatch, stack, company, **_):
    proxy_at(monkeypatch, stack.enter_context(web(through_to(stack.enter_context(web(GOOD, issued(company, "index.invalid")))))))


@fault("package index", "fail", "unknown here: 'Clinic Proxy Authority'", "pip config set global.cert")
def intercepted_and_the_right_list_is_elsewhere(monkeypatch, stack, company, elsewhere, tmp_path, **_):
    intercepted_by_an_unknown_authority(monkeypatch, stack=stack, company=company)
    trusted(monkeypatch, elsewhere, tmp_path, "PIP_CERT")
    trusted(monkeypatch, company, tmp_path, "CURL_CA_BUNDLE")


@fault("model download", "warn", "unknown here: 'Clinic Proxy Authority'", "export SSL_CERT_FILE")
def models_are_intercepted(monkeypatch, stack, company, **_):
    proxy_at(monkeypatch, stack.enter_context(web(through_to(stack.enter_context(web(GOOD, issued(company, "huggingface.co")))))))


@fault("uv index", "fail", "unknown here", "export SSL_CERT_FILE=")
def uv_does_not_know_the_system_list(monkeypatch, stack, company, tmp_path, **_):
    monkeypatch.setenv("UV_INDEX_URL", f"https://127.0.0.1:{stack.enter_context(web(GOOD, issued(company)))}/simple")
    trusted(monkeypatch, company, tmp_path, "REQUESTS_CA_BUNDLE")


@fault("package index", "fail", "signed itself", "PIP_CERT" if os.name == "nt" else "pip config set global.cert")
def self_signed(monkeypatch, stack, tmp_path, **_):
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "9",
                    "-subj", "/CN=own index", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)

    class Own:
        configure_cert = staticmethod(lambda context: context.load_cert_chain(certificate, key))
    index_at(monkeypatch, stack.enter_context(web(GOOD, Own)), "https")


@fault("package index", "fail", "has expired", "date -u")
def expired(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    index_at(monkeypatch, stack.enter_context(web(GOOD, issued(company, from_days=-9, to_days=-1))), "https")


@fault("package index", "fail", "not valid yet", "timedatectl")
def not_yet_valid(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    index_at(monkeypatch, stack.enter_context(web(GOOD, issued(company, from_days=2, to_days=9))), "https")


@fault("package index", "fail", "is not for 127.0.0.1", "check the address")
def certificate_of_another_server(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    index_at(monkeypatch, stack.enter_context(web(GOOD, issued(company, "mirror.example"))), "https")


@fault("package index", "fail", "is not for localhost", "check the address")
def certificate_of_another_name(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    index_at(monkeypatch, stack.enter_context(web(GOOD, issued(company, "mirror.example"))), "https", "localhost")


@fault("package index", "fail", "speaks without encryption", "https://")
def index_without_encryption(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(GOOD)), "https")


@fault("package index", "fail", "no certificates can be read", "unset PIP_CERT")
def list_of_certificates_is_missing(monkeypatch, stack, company, tmp_path, **_):
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "gone.pem"))
    index_at(monkeypatch, stack.enter_context(web(GOOD, issued(company))), "https")


@fault("package index", "fail", "titled 'Access denied by policy 7'", "browser")
def block_page(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(200, PAGE, Content_Type="text/html"))))


@fault("model download", "warn", "titled 'Access denied by policy 7'", "browser")
def block_page_where_a_model_is_expected(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "SSL_CERT_FILE")
    page = stack.enter_context(web(lambda h: h.send(403, PAGE, Content_Type="text/html"), issued(company, "huggingface.co")))
    proxy_at(monkeypatch, stack.enter_context(web(through_to(page))))


@fault("package index", "fail", "is redirected to localhost", "log in")
def captive_portal(monkeypatch, stack, **_):
    hotel = stack.enter_context(web(lambda h: h.send(200, PAGE, Content_Type="text/html")))
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(302, Location=f"http://localhost:{hotel}/login"))))


@fault("package index", "fail", "without encryption", "log in")
def redirect_to_an_open_page(monkeypatch, stack, company, tmp_path, **_):
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(302, Location="http://hotel.invalid/"), issued(company))), "https")


@fault("package index", "fail", "redirects without end", "log in")
def redirects_in_a_circle(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(302, Location=h.path))))


@fault("package index", "warn", "cannot serve", "minutes")
def server_is_busy(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(503))))


@fault("package index", "warn", "no such page", "/simple")
def wrong_index_address(monkeypatch, stack, **_):
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(404))))


@fault("package index", "fail", "asks for a name and a password", "owner")
def index_wants_a_login(monkeypatch, stack, **_):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://nurse:{SECRET}@127.0.0.1:{stack.enter_context(web(lambda h: h.send(401)))}/simple")


@fault("package index", "fail", "is no address of a server", "correct the address")
def index_is_no_address(monkeypatch, **_):
    monkeypatch.setenv("PIP_INDEX_URL", f"https://nurse:{SECRET}@[::1/simple")


@fault("package index", "fail", "not there", "index-url")
def index_is_a_folder_that_is_gone(monkeypatch, tmp_path, **_):
    monkeypatch.setenv("PIP_INDEX_URL", f"file://{tmp_path}/gone")


def line_of(name: str, patience_s: float = 3.0) -> Check:
    "The line of one target, asked as run_doctor asks it."
    from medkit.network import _at_rest

    target = next(one for one in network_targets() if one.name == name)
    return _at_rest(target) or judge_answer(target, ask_all([target], patience_s)[name])


def assert_named(check, state, words, fix):
    assert check.state == state and words in check.value and fix in check.remedy, check
    assert not OFF.search(check.remedy), check.remedy
    assert SECRET not in repr(check) and "Traceback" not in repr(check)


@pytest.mark.parametrize("name", NET)
def test_fault_of_the_net_is_named(name, monkeypatch, stack, company, elsewhere, tmp_path):
    arrange, line, state, words, fix = NET[name]
    arrange(monkeypatch=monkeypatch, stack=stack, company=company, elsewhere=elsewhere, tmp_path=tmp_path)
    began = time.monotonic()
    assert_named(line_of(line), state, words, fix)
    assert time.monotonic() - began < 10


def test_direct_way_is_offered_beside_a_login(monkeypatch, stack):
    index_at(monkeypatch, stack.enter_context(web(GOOD)))
    proxy_at(monkeypatch, stack.enter_context(web(lambda h: h.send(407, Proxy_Authenticate="Basic"))))
    check = line_of("package index")
    assert "USER:PASSWORD" in check.remedy and "unset HTTP_PROXY http_proxy" in check.remedy


def test_all_is_well_through_a_proxy_with_a_password(monkeypatch, stack, company, tmp_path):
    "A proxy that wants a login, opens the traffic, and whose authority is known: green."
    asked = []

    def answer(handler):
        asked.append(handler.headers.get("Proxy-Authorization"))
        through_to(port)(handler)

    port = stack.enter_context(web(GOOD, issued(company, "index.invalid")))
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    proxy_at(monkeypatch, stack.enter_context(web(answer)), "nurse:p%40ss@")
    check = line_of("package index")
    assert check.state == "ok" and "through the proxy" in check.value and not check.remedy, check
    assert asked == ["Basic bnVyc2U6cEBzcw=="]  # nurse:p@ss


def test_html_index_is_no_block_page(monkeypatch, stack):
    body = b'<!DOCTYPE html><html><body><a href="/f/pip-24.0-py3-none-any.whl">pip-24.0-py3-none-any.whl</a></body></html>'
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(200, body, Content_Type="text/html"))))
    assert line_of("package index").state == "ok"


# ---- faults of the settings ----

SETTINGS = {
    "two spellings differ": ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "proxy", "warn", "differ", '"$https_proxy"'),
    "no scheme": ({"HTTPS_PROXY": "proxy.example:3128"}, "proxy", "warn", "no scheme", '"http://$HTTPS_PROXY"'),
    "password with an @": ({"HTTPS_PROXY": f"http://nurse:{SECRET}@x@proxy:1"}, "proxy", "fail", "must be written", "getpass"),
    "password with a /": ({"HTTPS_PROXY": f"http://nurse:a/{SECRET}@proxy:1"}, "proxy", "fail", "must be written", "getpass"),
    "no address": ({"HTTPS_PROXY": "http://pro xy"}, "proxy", "fail", "is no address", "http://PROXY:PORT"),
    "http proxy only": ({"HTTP_PROXY": "http://a:1"}, "proxy", "warn", "HTTPS_PROXY is not", '"$HTTP_PROXY"'),
    "ALL_PROXY only": ({"ALL_PROXY": "http://a:1"}, "proxy", "warn", "HTTPS_PROXY is not", '"$ALL_PROXY"'),
    "NO_PROXY covers the index": ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "localhost,.org"}, "proxy", "warn", "pypi.org", "NO_PROXY=localhost"),
    "NO_PROXY covers all": ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "proxy", "warn", "huggingface.co", "NO_PROXY="),
    "SOCKS for https": ({"HTTPS_PROXY": "socks5://a:1"}, "proxy", "warn", "SOCKS", "http proxy"),
    "missing list": ({"SSL_CERT_FILE": "/no/such.pem"}, "certificates", "fail", "SSL_CERT_FILE is not there", "unset SSL_CERT_FILE"),
    "broken list": ({"REQUESTS_CA_BUNDLE": "{broken}"}, "certificates", "fail", "holds no certificate", "unset REQUESTS_CA_BUNDLE"),
    "binary list": ({"SSL_CERT_FILE": "{binary}"}, "certificates", "fail", "(DER)", "openssl x509 -inform der"),
    "empty folder of lists": ({"SSL_CERT_DIR": "{empty}"}, "certificates", "fail", "empty folder", "unset SSL_CERT_DIR"),
    "pip does not check": ({"PIP_TRUSTED_HOST": "pypi.org"}, "certificates", "warn", "does not check", "delete the line"),
    "git does not check": ({"GIT_SSL_NO_VERIFY": "1"}, "certificates", "warn", "GIT_SSL_NO_VERIFY", "delete the line"),
    "pip.conf is damaged": ({"PIP_CONFIG_FILE": "{conf}"}, "pip", "fail", "cannot be read", "mv "),
    "uv.toml is damaged": ({"UV_CONFIG_FILE": "{conf}", "UV_NO_CONFIG": ""}, "uv", "fail", "cannot be read", "mv "),
    "pip of another Python": ({"PATH": "{bin}"}, "pip", "warn", "serves another Python", sys.executable),
    "uv is broken": ({"PATH": "{bin}"}, "uv", "warn", "does not say its version", "install uv"),
    "no pip and no uv": ({"PATH": "{empty}", "PYTHONPATH": ""}, "pip", "warn", "there is no uv", "ensurepip"),
    "MEDKIT_DATA is gone": ({"MEDKIT_DATA": "{empty}/gone"}, "MEDKIT_DATA", "fail", "is not a folder", "unset MEDKIT_DATA"),
    "the cache is a file": ({"MEDKIT_CACHE": "{conf}"}, "cache", "fail", "cannot be written", "MEDKIT_CACHE="),
    "TMPDIR is gone": ({"TMPDIR": "{empty}/gone"}, "temporary folder", "fail", "of TMPDIR cannot be written", "TMPDIR="),
}
LOOK_OF = {"MEDKIT_DATA": "cache", "temporary folder": "disk", "working folder": "cache"}


@pytest.mark.parametrize("name", SETTINGS)
def test_fault_of_the_settings_is_named(name, monkeypatch, tmp_path):
    variables, line, state, words, fix = SETTINGS[name]
    places = {place: tmp_path / place for place in ("broken", "binary", "conf", "bin", "empty")}
    places["broken"].write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
    places["binary"].write_bytes(b"\x30\x82\x03\x01" + bytes(100))
    places["conf"].write_text("index-url = without a section\n[[[\n")
    places["empty"].mkdir(), places["bin"].mkdir()
    for program in ("pip", "uv"):
        (places["bin"] / program).write_text("#!/bin/sh\nexit 3\n")
        (places["bin"] / program).chmod(0o755)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value.format(**places))
    if name == "no pip and no uv":
        monkeypatch.setattr(doctor, "_version", lambda package: "")
    check = next(one for one in doctor._lines(LOOK_OF.get(line, line)) if one.name == line)
    assert_named(check, state, words, fix)


def test_passwords_stay_secret_in_the_whole_report(monkeypatch):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "PIP_PROXY"):
        monkeypatch.setenv(name, f"http://nurse:{SECRET}%40@[not an address")
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(name, f"https://nurse:{SECRET}@index.invalid:99999/simple?token={SECRET}")
    for look in ("network", "proxy", "certificates", "pip", "uv"):
        for check in doctor.cover_checks(doctor._lines(look), doctor.secrets()):
            assert SECRET not in repr(check), check


# ---- faults of the notebooks ----


def kernel_at(folder, program):
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True)
    spec = {"argv": [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec))


def front_end_at(folder, version):
    place = folder / "labextensions" / "@jupyter-widgets" / "jupyterlab-manager"
    place.mkdir(parents=True)
    (place / "package.json").write_text(json.dumps({"version": version}))


@pytest.mark.parametrize("program, words", [("/usr/bin/env", "python3 starts /usr/bin/env"), ("/opt/gone/bin/python", "which is not there")])
def test_fault_kernel_of_another_environment_is_named(monkeypatch, tmp_path, program, words):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel_at(tmp_path, program)
    (check,) = doctor._lines("kernel")
    assert_named(check, "fail", words, "unset JUPYTER_PATH")
    assert str(tmp_path) in check.value


def test_fault_kernel_in_the_users_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    kernel_at(tmp_path, "/usr/bin/python3")
    (check,) = doctor._lines("kernel")
    assert_named(check, "fail", "python3 starts /usr/bin/python3", "mv ")


def test_fault_damaged_kernel_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel_at(tmp_path, "x")
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text("{")
    (check,) = doctor._lines("kernel")
    assert_named(check, "fail", "no kernel python3 that can be read", "ipykernel install")


@pytest.mark.parametrize("version", ["3.1.1", "2.0.0", ""])
def test_fault_old_widgets_are_named(monkeypatch, tmp_path, version):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    front_end_at(tmp_path, version)
    (check,) = doctor._lines("widgets")
    assert_named(check, "fail", "does not speak to ipywidgets", "jupyterlab_widgets")


def test_fault_widgets_that_are_switched_off_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path))
    (tmp_path / "labconfig").mkdir()
    off = {"disabledExtensions": {"@jupyter-widgets/jupyterlab-manager": True}}
    (tmp_path / "labconfig" / "page_config.json").write_text(json.dumps(off))
    (check,) = doctor._lines("widgets")
    assert_named(check, "fail", "switched off", "jupyter labextension enable")


def test_fault_taken_ports_are_named(monkeypatch):
    "Five ports in a row are taken, whichever are free here."
    for first in range(21000, 60000, 97):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + 5):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            monkeypatch.setenv("JUPYTER_PORT", str(first))
            (check,) = doctor._lines("ports")
            assert_named(check, "warn", f"{first} to {first + 4} are all in use", "jupyter lab --port")
            return
    raise AssertionError("no five free ports in a row")


# ---- faults of packages: in the process that the doctor starts ----

FAKE_TORCH = """
from types import SimpleNamespace as Names
from contextlib import nullcontext as no_grad
__version__ = "2.9.1+cpu"
nn = Names(Conv2d=lambda *sizes, padding: lambda x: x)
cuda, backends = Names(is_available=lambda: False), Names()
def ones(*sizes): return 0
def set_num_threads(count): pass
def get_num_threads(): return 1
"""


def packages(monkeypatch, folder, **modules):
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_fault_wrong_torchvision_is_named(monkeypatch, tmp_path):
    packages(monkeypatch, tmp_path, torch=FAKE_TORCH, torchvision="raise RuntimeError('operator torchvision::nms does not exist')")
    found = {check.name: check for check in doctor._lines("torch")}
    assert found["torch"].state == "ok"
    assert_named(found["torchvision"], "fail", "does not fit torch 2.9.1+cpu: RuntimeError: operator torchvision::nms", "torch torchvision --index-url")
    assert doctor.metadata.version("torchvision") in found["torchvision"].value


def test_fault_torchvision_that_kills_the_process_is_named(monkeypatch, tmp_path):
    packages(monkeypatch, tmp_path, torch=FAKE_TORCH, torchvision="import os; os.abort()")
    found = {check.name: check for check in doctor._lines("torch")}
    assert found["torch"].state == "ok"
    assert_named(found["torchvision"], "fail", "takes the whole process down", "pip install")


def test_fault_broken_torch_is_named(monkeypatch, tmp_path):
    packages(monkeypatch, tmp_path, torch="raise ImportError('libcudart.so.13: cannot open shared object file')")
    (check,) = doctor._lines("torch")
    assert_named(check, "fail", "libcudart.so.13", "pip install --force-reinstall torch")


def test_fault_missing_codecs_are_named(monkeypatch, tmp_path):
    gone = "raise ImportError('not installed')"
    packages(monkeypatch, tmp_path, pylibjpeg=gone, openjpeg=gone, libjpeg=gone, jpeg_ls=gone, gdcm=gone, PIL=gone)
    (check,) = doctor._lines("codecs")
    assert_named(check, "warn", "JPEG2000", 'pip install "medkit[codecs]"')


# ---- faults of disks and memory: in a namespace or a process of their own ----

LINES = ("import json, sys; from medkit import doctor; from dataclasses import asdict;"
         "print(json.dumps([asdict(check) for look in sys.argv[1:] for check in doctor._lines(look)]))")


def lines_in(command: list[str], looks: str, env: dict, **options) -> dict[str, Check]:
    done = subprocess.run([*command, sys.executable, "-c", LINES, *looks.split()], env={**os.environ, **env}, capture_output=True,
                          text=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr
    return {row["name"]: Check(**row) for row in json.loads(done.stdout.splitlines()[-1])}


@pytest.fixture(scope="session")
def namespace():
    "May this user mount a small disk in a namespace of its own? That leaves the machine as it is, and goes away by itself."
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode:
        pytest.skip("no namespace may be made here, so no disk can be filled")
    return ["unshare", "-rm", "sh", "-ec"]


def on_disk(namespace, options, prepare, looks, env, place):
    script = f'mount -t tmpfs -o {options} x "{place}"; {prepare}; exec "$@"'
    return lines_in([*namespace, script, "sh"], looks, env)


def test_fault_full_disk_is_named(namespace, tmp_path):
    full = f'dd if=/dev/zero of="{tmp_path}/filler" bs=64k 2>/dev/null || true'
    env = {"TMPDIR": str(tmp_path), "MEDKIT_CACHE": str(tmp_path)}
    found = on_disk(namespace, "size=1m", full, "disk cache", env, tmp_path)
    assert_named(found["temporary folder"], "fail", "the disk is full", "TMPDIR=")
    assert_named(found["cache"], "fail", "the disk is full", "MEDKIT_CACHE=")
    assert_named(found["disk"], "fail", "0.0 GB free", "pip cache purge")
    assert not (tmp_path / "filler").exists()  # the namespace took it away


def test_fault_disk_without_room_for_more_files_is_named(namespace, tmp_path):
    found = on_disk(namespace, "size=1g,nr_inodes=30", "true", "disk", {"MEDKIT_CACHE": str(tmp_path)}, tmp_path)
    assert_named(found["disk"], "fail", "more files only", "pip cache purge")


def test_fault_disk_that_is_read_only_is_named(namespace, tmp_path):
    env = {"MEDKIT_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    script = f'mkdir "{tmp_path}/cache"; mount -o remount,ro "{tmp_path}"; cd "{tmp_path}"'
    found = on_disk(namespace, "size=1m", script, "cache disk", env, tmp_path)
    assert_named(found["cache"], "fail", "read-only file system", "MEDKIT_CACHE=")
    assert_named(found["working folder"], "warn", "read-only file system", "cd ")
    assert_named(found["temporary folder"], "fail", "read-only file system", "TMPDIR=")


def test_fault_file_that_hides_a_package_is_named(tmp_path):
    (tmp_path / "random.py").write_text("dice = 4\n")
    (tmp_path / "my_notes.py").write_text("")
    found = lines_in([], "cache", {"PYTHONSAFEPATH": "1"}, cwd=tmp_path)
    assert_named(found["working folder"], "fail", "random.py in it hides", "mv random.py my_random.py")


def test_fault_working_folder_that_was_removed_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    found = lines_in(["sh", "-ec", f'cd "{gone}"; rmdir "{gone}"; exec "$@"', "sh"], "cache", {"PYTHONSAFEPATH": "1"})
    assert_named(found["working folder"], "fail", "removed", "cd ~")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no ulimit")
def test_fault_limit_of_the_shell_on_memory_is_named():
    found = lines_in(["sh", "-ec", 'ulimit -v 1500000; exec "$@"', "sh"], "memory", {})
    assert_named(found["memory"], "warn" if "1." in found["memory"].value[:2] else "fail", "of the shell's limit", "ulimit -v unlimited")


@pytest.fixture
def group():
    "A real control group of version 1 or 2 with 700 MB, where this user may make one."
    for base, limit, tasks in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "cgroup.procs"), ("/sys/fs/cgroup", "memory.max", "cgroup.procs")):
        place = Path(base, f"medkit-test-{os.getpid()}")
        try:
            place.mkdir()
        except OSError:
            continue
        try:
            (place / limit).write_text(str(700 << 20))
            yield place / tasks
            return
        except OSError:
            continue
        finally:
            place.rmdir()
    pytest.skip("no control group may be made here")


def test_fault_limit_of_a_container_on_memory_is_named(group):
    found = lines_in(["sh", "-ec", f'echo $$ > "{group}"; exec "$@"', "sh"], "memory", {})
    assert_named(found["memory"], "fail", "0.7 GB free of the container", "docker run --memory")


# ---- the clock ----


@pytest.mark.parametrize("days, words", [(1, "behind"), (-1, "ahead")])
def test_fault_wrong_clock_is_named(monkeypatch, stack, days, words):
    index_at(monkeypatch, stack.enter_context(web(lambda h: h.send(200, b"{}", date=time.time() + days * 86400))))
    target = network_targets()[0]
    answer = ask_all([target])["package index"]
    check = check_clock([answer.ahead_s])
    assert_named(check, "fail", f"days {words}" if abs(answer.ahead_s) >= 86400 else f"hours {words}", "timedatectl")


def test_fault_file_from_the_future_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    os.utime(tmp_path / "notes.txt", (time.time() + 3 * 86400,) * 2)
    assert_named(check_clock([]), "fail", "3.0 days behind, files here say", "timedatectl")


# ---- never for long ----


def everything_through(monkeypatch, port):
    proxy_at(monkeypatch, port)
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "https://index.invalid/simple")


@pytest.mark.parametrize("kind", ["black hole", "drip", "name server hangs"])
def test_fault_dead_network_never_takes_long(kind, monkeypatch, stack, tmp_path):
    "The whole command, from a fresh process to its end, against the same without a net."
    code = "import time; began = time.monotonic(); from medkit.doctor import run_doctor; found = run_doctor(); print(time.monotonic() - began)"
    if kind == "name server hangs":
        (tmp_path / "sitecustomize.py").write_text("import socket, time\nsocket.getaddrinfo = lambda *words, **more: time.sleep(300)\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    else:
        everything_through(monkeypatch, stack.enter_context(silent() if kind == "black hole" else chatter(drip)))
    packages(monkeypatch, tmp_path, torch=FAKE_TORCH, torchvision="")  # the network alone is timed; torch takes what it takes
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 15, done.stdout


def test_many_slow_probes_take_no_longer_than_one(monkeypatch, stack):
    port = stack.enter_context(silent())
    targets = [Target(f"index {number}", f"https://127.0.0.1:{port}/simple", "pip", "index") for number in range(60)]
    began = time.monotonic()
    found = ask_all(targets, patience_s=2.0)
    assert time.monotonic() - began < 6 and len(found) == 60
    assert {answer.fault for answer in found.values()} == {"timeout"}


def test_offline_asks_nobody(monkeypatch):
    def refuse(*words, **more):
        raise AssertionError("the network was asked")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    found = {check.name: check for check in doctor._lines("network")}
    assert all(found[name].value == "not looked at: MEDKIT_OFFLINE is 1" for name in ("package index", "model download", "data sets"))


# ---- no fix switches a check off ----


def test_no_fix_switches_the_check_of_certificates_off():
    from medkit.symptoms import symptoms

    texts = [text for pair in FAULTS.values() for text in pair] + [text for one in symptoms() for text in (one.meaning, one.fix)]
    source = "".join(Path(doctor.__file__).with_name(f"{name}.py").read_text() for name in ("doctor", "machine", "kernels", "checks", "symptoms"))
    for text in [*texts, source]:
        assert not OFF.search(text), OFF.search(text)
    for bad in ("pip install --trusted-host pypi.org x", "requests.get(url, verify=False)", "conda config --set ssl_verify false",
                "export PYTHONHTTPSVERIFY=0", "git config http.sslVerify false", "npm config set strict-ssl false", "curl -k https://x"):
        assert OFF.search(bad), bad


def test_count_of_provoked_faults(record_property):
    "The bar of the project is twenty."
    faults = [name for name in globals() if name.startswith("test_fault_") and name.endswith("_is_named")]
    count = len(NET) + len(SETTINGS) + len(faults) - 2
    record_property("faults provoked for real", str(count))
    assert count >= 20


# ---- what else works becomes the fix ----


def test_fault_proxy_that_only_git_knows_is_named(monkeypatch, stack, company, tmp_path):
    "No variable is set, the direct way is closed, and git was told a proxy with a password: the fix takes it over unseen."
    port = stack.enter_context(web(through_to(stack.enter_context(web(GOOD, issued(company, "index.invalid"))))))
    (tmp_path / "git").write_text(f"[http]\n\tproxy = http://nurse:{SECRET}@127.0.0.1:{port}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "git"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    assert_named(line_of("package index", 6.0), "fail", "no address is known", 'export HTTPS_PROXY="$(git config --get http.proxy)"')


def test_fault_proxy_that_only_conda_knows_is_named(monkeypatch, stack, company, tmp_path):
    port = stack.enter_context(web(through_to(stack.enter_context(web(GOOD, issued(company, "index.invalid"))))))
    (tmp_path / ".condarc").write_text(f"proxy_servers:\n  https: http://nurse:{SECRET}@127.0.0.1:{port}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    trusted(monkeypatch, company, tmp_path, "PIP_CERT")
    assert_named(line_of("package index", 6.0), "fail", "no address is known", f"HTTPS_PROXY=http://USER:PASSWORD@127.0.0.1:{port}")


def test_proxy_elsewhere_that_does_not_work_is_not_offered(monkeypatch, tmp_path):
    (tmp_path / ".condarc").write_text(f"proxy_servers:\n  https: http://127.0.0.1:{closed_port()}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    assert "condarc" not in line_of("package index").remedy
