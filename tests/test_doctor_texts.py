"""Pasted errors as people paste them: each wording is one that the program really prints.

Those of pip 24.0 and uv were printed by both tools in front of the servers of test_doctor_faults.py; the others stand in public
issue threads or are printed by the library that is named.
"""

import json
import re
import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.doctor import diagnose
from medkit.files import shipped
from medkit.symptoms import symptoms

RETRY = "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by "
NONE = ("': /simple/six/\nERROR: Could not find a version that satisfies the requirement six (from versions: none)\n"
        "ERROR: No matching distribution found for six")
UV = ("error: Failed to fetch: https://index.example/simple/six/\n  cause: error sending request for url (https://index.example/simple/six/)\n"
      "  cause: client error (Connect)\n  cause: ")

TEXTS = [
    # certificates
    ("tls-unknown-authority", RETRY + "'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
     "unable to get local issuer certificate (_ssl.c:1006)'))" + NONE),
    ("tls-unknown-authority", UV + "invalid peer certificate: UnknownIssuer\n\nhint: Consider enabling use of system TLS certificates with the "
     "`--system-certs` command-line flag"),
    ("tls-unknown-authority", "fatal: unable to access 'https://github.com/org/repo.git/': SSL certificate problem: unable to get local issuer certificate"),
    ("tls-unknown-authority", "urllib.error.URLError: <urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed "
     "certificate in certificate chain (_ssl.c:1017)>"),
    ("tls-unknown-authority", "curl: (60) SSL certificate problem: self signed certificate in certificate chain"),
    ("tls-expired", RETRY + "'SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has "
     "expired (_ssl.c:1006)'))" + NONE),
    ("tls-expired", UV + "invalid peer certificate: certificate expired: verification time 1795342587 (UNIX), but certificate is not valid "
     "after 1795256185 (86402 seconds ago)"),
    ("tls-not-yet-valid", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate is not yet valid (_ssl.c:1006)"),
    ("tls-not-yet-valid", UV + "invalid peer certificate: certificate not valid yet: verification time 1795342590 (UNIX), but certificate is not "
     "valid before 1795515388 (172798 seconds in future)"),
    ("tls-wrong-host", "WARNING: Certificate did not match expected hostname: 127.0.0.1. Certificate: {'subject': ()}\n" + RETRY
     + "'SSLError(CertificateError(\"hostname '127.0.0.1' doesn't match 'mirror.example'\"))" + NONE),
    ("tls-wrong-host", UV + 'invalid peer certificate: certificate not valid for name "127.0.0.1"; certificate is only valid for DnsName("m.example")'),
    ("tls-bundle", "ERROR: Could not install packages due to an OSError: Could not find a suitable TLS CA certificate bundle, invalid path: /no/such.pem"),
    ("tls-bundle", "warning: Invalid `SSL_CERT_FILE`. Path does not exist: /no/such.pem. No default certificates will be trusted.\n" + UV
     + "tcp connect error\n  cause: Connection refused (os error 111)"),
    ("tls-module", RETRY + "'SSLError(\"Can't connect to HTTPS URL because the SSL module is not available.\")" + NONE),
    # proxies
    ("proxy-407", RETRY + "'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407 Proxy Authentication Required'))" + NONE),
    ("proxy-407", UV + "tunnel error: proxy authorization required"),
    ("proxy-407", "curl: (56) Received HTTP code 407 from proxy after CONNECT"),
    ("proxy-denied", RETRY + "'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403 Forbidden'))" + NONE),
    ("proxy-refuses", UV + "tunnel error: unsuccessful"),
    ("proxy-gateway", RETRY + "'ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 502 Bad Gateway'))" + NONE),
    ("proxy-gateway", "  cause: HTTP status server error (503 Service Unavailable) for url (http://127.0.0.1:41077/simple/six/)"),
    ("proxy-dead", RETRY + "'ProxyError('Cannot connect to proxy.', NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at "
     "0x7f15cf0a71d0>: Failed to establish a new connection: [Errno 111] Connection refused'))" + NONE),
    ("proxy-dead", UV + "tunnel error: failed to create underlying connection\n  cause: tcp connect error\n  cause: Connection refused (os error 111)"),
    ("proxy-scheme", RETRY + "'ProxyError('Your proxy appears to only use HTTP and not HTTPS, try changing your proxy URL to be HTTP. See: "
     "https://urllib3.readthedocs.io/en/1.26.x/advanced-usage.html', SSLError(SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong version number "
     "(_ssl.c:1006)')))" + NONE),
    ("proxy-scheme", UV + "tunnel error: failed to create underlying connection\n  cause: received corrupt message of type InvalidContentType"),
    ("proxy-scheme", "ValueError: check_hostname requires server_hostname"),
    ("proxy-address", "ERROR: Could not install packages due to an OSError: Failed to parse: http://nurse:a/b@127.0.0.1:1"),
    ("proxy-address", "requests.exceptions.InvalidProxyURL: Please check proxy URL. It is malformed and could be missing the host."),
    ("proxy-socks", "ERROR: Could not install packages due to an OSError: Missing dependencies for SOCKS support."),
    # the net
    ("net-dns", RETRY + "'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7fb8d2587a50>: Failed to establish a new "
     "connection: [Errno -2] Name or service not known')" + NONE),
    ("net-dns", UV + "dns error\n  cause: error resolving DNS\n  cause: failed to lookup address information: Name or service not known"),
    ("net-dns", "error: error trying to connect: dns error: No such host is known. (os error 11001)"),
    ("net-dns", "socket.gaierror: [Errno 11001] getaddrinfo failed"),
    ("net-dns", "urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>"),
    ("net-unreachable", "OSError: [Errno 101] Network is unreachable"),
    ("net-timeout", RETRY + "'ReadTimeoutError(\"HTTPConnectionPool(host='127.0.0.1', port=34957): Read timed out. (read timeout=2.0)\")" + NONE),
    ("net-timeout", "TimeoutError: [WinError 10060] A connection attempt failed because the connected party did not properly respond"),
    ("net-refused", "requests.exceptions.ConnectionError: [Errno 111] Connection refused"),
    ("net-reset", "('Connection aborted.', RemoteDisconnected('Remote end closed connection without response'))"),
    ("net-reset", "ConnectionResetError: [WinError 10054] An existing connection was forcibly closed by the remote host"),
    ("net-page", "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge"),
    ("net-page", "_pickle.UnpicklingError: invalid load key, '<'."),
    ("net-page", "zipfile.BadZipFile: File is not a zip file"),
    ("net-403", "urllib.error.HTTPError: HTTP Error 403: Forbidden"),
    ("net-403", "hint: An index (http://127.0.0.1:35637/simple) returned a 403 Forbidden error. Check that the index URL is correct"),
    ("net-401", "An index URL (http://127.0.0.1:33589/simple) could not be queried due to a lack of valid authentication credentials (401 Unauthorized)"),
    ("net-429", "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: https://huggingface.co/api/models"),
    ("net-hub", "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files."),
    # pip and uv
    ("pip-managed", "error: externally-managed-environment\n\n× This environment is externally managed\n╰─> To install Python packages system-wide, "
     "try apt install python3-xyz"),
    ("pip-conflict", "ERROR: Cannot install a==1 and b==2 because these package versions have conflicting dependencies.\nERROR: ResolutionImpossible: "
     "for help visit https://pip.pypa.io/en/latest/topics/dependency-resolution/#dealing-with-dependency-conflicts"),
    ("pip-conflict", "  × No solution found when resolving dependencies:\n  ╰─▶ Because nbdev==2.4.14 depends on fastcore<2 and you require fastcore>=2"),
    ("pip-hash", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, please update"),
    ("pip-hash", "error: Failed to download `six==1.16.0`\n  Caused by: Hash mismatch for `six==1.16.0`"),
    ("pip-none", "ERROR: Could not find a version that satisfies the requirement numppy (from versions: none)\nERROR: No matching distribution found for numppy"),
    ("pip-none", "error: No solution found when resolving dependencies\n  cause: Because six was not found in the package registry and you require six, we "
     "can conclude that your requirements are unsatisfiable."),
    ("pip-python", "ERROR: Package 'medkit' requires a different Python: 3.9.2 not in '>=3.11'"),
    ("pip-build", "error: Microsoft Visual C++ 14.0 or greater is required. Get it with \"Microsoft C++ Build Tools\""),
    ("pip-build", "× Building wheel for pyjpegls (pyproject.toml) did not run successfully.\nERROR: Failed building wheel for pyjpegls"),
    ("pip-settings", "ERROR: Configuration file could not be loaded.\nFile contains no section headers.\nfile: '/home/a/.config/pip/pip.conf', line: 1"),
    ("pip-missing", "/home/a/.venv/bin/python: No module named pip"),
    ("pip-permission", "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: '/usr/lib/python3/dist-packages/six.py'\n"
     "Consider using the `--user` option or check the permissions."),
    ("pip-permission", "ERROR: Could not install packages due to an OSError: [WinError 5] Access is denied: 'C:\\\\Python312\\\\torch.dll'"),
    ("pip-long-path", "HINT: This error might have occurred since this system does not have Windows Long Path support enabled. You can find information "
     "on how to enable this at https://pip.pypa.io/warnings/enable-long-paths"),
    ("pip-activate", ".venv\\Scripts\\Activate.ps1 cannot be loaded because running scripts is disabled on this system."),
    ("pip-no-command", "bash: medkit: command not found"),
    ("pip-no-command", "'jupyter' is not recognized as an internal or external command,\noperable program or batch file."),
    # torch
    ("torch-torchvision", "RuntimeError: operator torchvision::nms does not exist"),
    ("torch-torchvision", "RuntimeError: Couldn't load custom C++ ops. This can happen if your PyTorch and torchvision versions are incompatible"),
    ("torch-no-cuda", "AssertionError: Torch not compiled with CUDA enabled"),
    ("torch-driver", "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"),
    ("torch-card", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("torch-memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"),
    ("torch-device", "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
    ("torch-shared-memory", "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm)."),
    ("torch-shared-memory", "RuntimeError: DataLoader worker (pid 46794) is killed by signal: Bus error. It is possible that dataloader's workers are out "
     "of shared memory. Please try to raise your shared memory limit."),
    ("torch-worker", "RuntimeError: DataLoader worker (pid(s) 3216) exited unexpectedly"),
    ("torch-worker", "RuntimeError: DataLoader worker (pid 1042) is killed by signal: Killed."),
    ("torch-main", "RuntimeError:\n        An attempt has been made to start a new process before the\n        current process has finished its "
     "bootstrapping phase."),
    ("torch-weights", "_pickle.UnpicklingError: Weights only load failed. This file can still be loaded"),
    ("torch-omp", "OMP: Error #15: Initializing libiomp5md.dll, but found libiomp5md.dll already initialized."),
    ("torch-shape", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x512 and 1024x10)"),
    # libraries
    ("lib-dll", "ImportError: DLL load failed while importing _C: The specified module could not be found."),
    ("lib-dll", 'OSError: [WinError 1114] A dynamic link library (DLL) initialization routine failed. Error loading "C:\\torch\\lib\\c10.dll"'),
    ("lib-gl", "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"),
    ("lib-glibc", "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by x.so)"),
    ("lib-shared", "OSError: libsndfile.so.1: cannot open shared object file: No such file or directory"),
    ("lib-numpy", "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.0.1 as it may crash. To support both 1.x and 2.x"),
    ("lib-numpy", "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject"),
    ("lib-name", "AttributeError: partially initialized module 'random' has no attribute 'seed' (most likely due to a circular import)"),
    ("lib-nbdev", "ImportError: cannot import name 'Param' from 'fastcore.script' (/env/lib/python3.11/site-packages/fastcore/script.py)"),
    ("lib-nbdev", "ModuleNotFoundError: No module named 'execnb.nbio'"),
    # disk, memory, files
    ("disk-full", "OSError: [Errno 28] No space left on device"),
    ("disk-full", "OSError: [WinError 112] There is not enough space on the disk"),
    ("disk-full", "OSError: [Errno 122] Disk quota exceeded: '/home/a/.cache'"),
    ("disk-read-only", "OSError: [Errno 30] Read-only file system: '/course/cache'"),
    ("memory-full", "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 12.4 GiB for an array with shape (512, 512, 6344) and data type float64"),
    ("memory-full", "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ("kernel-died", "The kernel for Untitled.ipynb appears to have died. It will restart automatically."),
    ("kernel-died", "The Kernel crashed while executing code in the current cell or a previous cell."),
    ("kernel-died", "nbclient.exceptions.DeadKernelError: Kernel died"),
    ("files-open", "OSError: [Errno 24] Too many open files"),
    ("files-permission", "PermissionError: [Errno 13] Permission denied: '/data/out.png'"),
    ("files-encoding", "UnicodeDecodeError: 'charmap' codec can't decode byte 0x9d in position 12: character maps to <undefined>"),
    # JupyterLab
    ("jupyter-port", "OSError: [Errno 98] Address already in use"),
    ("jupyter-port", "[I 2026-01-01 ServerApp] The port 8888 is already in use, trying another port."),
    ("jupyter-widgets", "Error displaying widget: model not found"),
    ("jupyter-widgets", "Error creating widget: could not find model"),
    ("jupyter-widgets", "[Open Browser Console for more detailed log - Double click to close this message]\nFailed to load model class 'SliderModel' "
     "from module '@jupyter-widgets/controls'"),
    ("jupyter-magic", "Javascript Error: IPython is not defined"),
    ("jupyter-magic", "Javascript Error: require is not defined"),
    ("jupyter-no-kernel", "jupyter_client.kernelspec.NoSuchKernel: No such kernel named medkit"),
    ("jupyter-unreadable", "Unreadable Notebook: /work/a.ipynb NotJSONError('Notebook does not appear to be JSON: ...')"),
    ("jupyter-screen", "UserWarning: FigureCanvasAgg is non-interactive, and thus cannot be shown"),
    # data
    ("dicom-decoder", "RuntimeError: Unable to decompress 'JPEG 2000 Image Compression (Lossless Only)' pixel data because all plugins are missing dependencies:"
     "\n\tgdcm - requires gdcm>=3.0.10\n\tpylibjpeg - requires pylibjpeg>=2.0 and pylibjpeg-openjpeg>=2.0"),
    ("dicom-decoder", "RuntimeError: The following handlers are available to decode the pixel data however they are missing required dependencies: GDCM (req. GDCM)"),
    ("dicom-decoder", "RuntimeError: Unable to convert the Pixel Data as the 'pylibjpeg-libjpeg' plugin is not installed"),
    ("dicom-none", "pydicom.errors.InvalidDicomError: File is missing DICOM File Meta Information header or the 'DICM' prefix is missing from the header."),
    ("data-lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735"),
    ("data-lfs", "_pickle.UnpicklingError: invalid load key, 'v'."),
    ("data-offline", "medkit.errors.DataError: `dcm_qa_ct` is not on this machine. [offline]\nwhat to do: connect to the net, or set MEDKIT_DATA"),
    ("data-checksum", "medkit.errors.DataError: `ct/a.dcm` is not the registered file. [checksum_mismatch]\nfound: sha256 0b51"),
    ("module-medkit", "ModuleNotFoundError: No module named 'medkit'"),
    ("module-missing", "ModuleNotFoundError: No module named 'ray'"),
]


@pytest.mark.parametrize("number", range(len(TEXTS)), ids=[f"{number}-{name}" for number, (name, _) in enumerate(TEXTS)])
def test_text_is_recognised(number):
    "The symptom that is meant, and nothing else, also when a terminal has wrapped and coloured the text."
    name, text = TEXTS[number]
    for shown in (text, "\x1b[31m" + text.replace(" ", "\n", 3).upper() + "\x1b[0m" if "module-" not in name else text, "Traceback:\n" + text + "\n\n"):
        assert [one.name for one in diagnose(shown).found] == [name], shown


def test_every_symptom_has_a_wording():
    assert {one.name for one in symptoms()} <= {name for name, _ in TEXTS}


NEAR_MISSES = [
    "Successfully installed torch-2.15.0 torchvision-0.29.2 numpy-2.4.6",
    "Requirement already satisfied: certifi in ./env/lib (2026.1.1)",
    "KeyError: 'ssl'",
    "the proxy of the ward is nurse 407",
    "HTTP/1.1 200 OK; 403 slices, 502 rows, 407 beats",
    "IndexError: list index out of range",
    "ValueError: window width must be positive, got 0 HU",
    "epoch 28: errno 0, loss 0.403",
    "AttributeError: module 'torch' has no attribute 'nm'",
    "operator nms does not exist in my notes",
    "I connected to port 8888",
    "kernel size 3, kernel regularizer none",
    "The patient died; the kernel density was estimated",
    "memory: 23.7 of 25.3 GB free",
    "NameError: name 'medkit' is not defined",
    "import medkit",
    "the widget shows the slice",
    "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
    "[project]\nrequires-python = '>=3.11'",
    "git lfs track '*.dcm'",
    "the certificate of the course",
    "hash 4d7a matches",
    "",
    "   \n\t",
    "https://pypi.org/simple",
    "RuntimeError: boom",
    "The file has another encoding than UTF-8?",
]


@pytest.mark.parametrize("text", NEAR_MISSES, ids=range(len(NEAR_MISSES)))
def test_near_miss_is_not_recognised(text):
    assert diagnose(text).found == (), text


@pytest.mark.parametrize("text, name", [
    ("ModuleNotFoundError: No module named 'medkit_tools'", "module-missing"), ("No module named 'medkit.imaging'", "module-medkit"),
    ("ModuleNotFoundError: No module named 'ray.tune'", "module-missing"),
])
def test_near_names_of_modules(text, name):
    assert [one.name for one in diagnose(text).found] == [name]


@pytest.mark.parametrize("module, what", [("ray", "medkit[ray]"), ("cv2", "opencv-python-headless"), ("wfdb", "medkit[formats]"), ("yaml", "PyYAML")])
def test_missing_module_names_the_package(module, what):
    assert f'"{what}"' in diagnose(f"ModuleNotFoundError: No module named '{module}'").found[0].fix


def test_a_cause_comes_before_its_consequence():
    "pip retries, gives up, and says last what is true but useless."
    text = "\n".join(text for name, text in TEXTS if name in ("tls-unknown-authority", "pip-none"))
    found = [one.name for one in diagnose(text).found]
    assert found[0] == "tls-unknown-authority" and "pip-none" not in found


HOSTILE = {
    "one letter": "a" * 1_000_000,
    "one sign": "certificate_verify_failed " * 40_000,
    "beginnings of signs": "could not install packages due to an " * 30_000,
    "escapes": "\x1b[" * 500_000,
    "escapes with numbers": "\x1b[" + "1;" * 500_000,
    "addresses": "http://" + "a:b@" * 250_000,
    "many schemes": "http://" * 150_000,
    "modules": "No module named '" * 60_000,
    "dots": "No module named " + "a." * 490_000,
    "white space": " \n" * 500_000,
    "lines": "x\n" * 500_000,
    "high characters": "\U0001f4a9\u202e\x00" * 300_000,
    "surrogates": "\ud800" * 1_000_000,
    "capitals that grow": "İ" * 900_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_megabyte_takes_a_moment(kind):
    began = time.process_time()
    found = diagnose(HOSTILE[kind])
    json.dumps(found.as_dict())
    assert "<script" not in found._repr_html_() and str(found)
    assert time.process_time() - began < 5


def test_the_error_at_the_end_of_ten_megabytes_is_found():
    assert diagnose("progress 1 %\n" * 800_000 + "OSError: [Errno 28] No space left on device").found[0].name == "disk-full"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_gives_a_diagnosis(text):
    found = diagnose(text)
    assert set(found.as_dict()) == {"recognised", "symptoms", "last_line"} and isinstance(str(found), str)


@pytest.mark.parametrize("thing", [None, 3, b"OSError", ["OSError"]])
def test_what_is_no_text_is_refused(thing):
    with pytest.raises(TypeError, match="text of an error"):
        diagnose(thing)


def test_a_password_in_a_pasted_text_is_not_shown_again():
    found = diagnose("ProxyError: http://nurse:hunter2@proxy.example:3128 odd")
    assert "hunter2" not in str(found) + found._repr_html_() + json.dumps(found.as_dict())


def test_the_texts_are_whole():
    entries = tomllib.loads(shipped("data/symptoms.toml").read_text(encoding="utf-8"))
    assert len(entries) >= 30 and len({name for name, _ in TEXTS}) >= 30
    for name, entry in entries.items():
        assert set(entry) - {"source", "unless"} == {"title", "meaning", "fix", "signs"}, name
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", name) and len(entry["title"]) < 70 and len(entry["fix"]) < 330, name
        assert max(len(sentence.split()) for sentence in re.split(r"[.:;] ", entry["meaning"])) <= 25, name
