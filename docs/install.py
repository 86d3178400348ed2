"""Make .venv and install medkit with its developers' tools. Needs only Python 3.11+; uv does the downloads.

    python3 docs/install.py [--venv .venv] [--torch cpu|FOLDER] [--extra NAME]

A company mirror or proxy set for pip (`pip config`, PIP_INDEX_URL, HTTPS_PROXY) is honoured.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def stop(message: str) -> None:
    sys.exit(f"medkit set-up stopped: {message}")


def make_venv(venv: Path) -> Path:  # the environment's Python
    "A virtual environment that has pip."
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
        if done.returncode:
            stop(f"`{sys.executable} -m venv` failed.\n{done.stdout.strip()}\n"
                 "On Debian or Ubuntu: apt install python3-venv. Or choose another Python: make tour PYTHON=python3.12")
    return python


def uv_environment(python: Path) -> dict[str, str]:
    "The environment for uv: pip's mirror, the system's certificates, long time limits."
    env = {**os.environ, "VIRTUAL_ENV": str(python.parent.parent.resolve())}
    env.setdefault("UV_HTTP_TIMEOUT", "180")
    env.setdefault("UV_SYSTEM_CERTS", "1")
    asked = subprocess.run([str(python), "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True)
    mirror = os.environ.get("PIP_INDEX_URL") or (asked.stdout.strip() if asked.returncode == 0 else "")
    if mirror:
        env.setdefault("UV_DEFAULT_INDEX", mirror)
    return env


def torch_options(torch: str, venv: Path) -> list[str]:
    "uv's options for the wanted build of torch."
    if not torch:
        return []
    if torch == "cpu":
        return ["--torch-backend", "cpu"]
    wheels = sorted(Path(torch).glob("torch-*.whl"))
    if not wheels:
        stop(f"TORCH={torch}: no torch-*.whl there; give `cpu` or a folder of wheels")
    options = ["--find-links", torch]
    lines = [f"torch @ {wheels[-1].resolve().as_uri()}"]
    if not list(Path(torch).glob("torchvision-*.whl")):
        print("no torchvision wheel in that folder: medkit runs without it", flush=True)
        lines.append("torchvision ; python_version < '3'")
    overrides = venv / "torch-overrides.txt"
    overrides.write_text("\n".join(lines) + "\n")
    return [*options, "--override", str(overrides)]


def run_with_progress(command: list[str], env: dict[str, str], venv: Path) -> int:  # the exit status
    "Run the installer; say every few seconds how far the disk has filled. uv's own errors come through."
    start, before = time.perf_counter(), shutil.disk_usage(venv).used
    process = subprocess.Popen(command, env=env)
    end, every_s = ("\r", 1) if sys.stdout.isatty() else ("\n", 10)
    while True:
        try:
            return process.wait(timeout=every_s)
        except subprocess.TimeoutExpired:
            written = max(0, shutil.disk_usage(venv).used - before) / 1e9
            print(f"  {time.perf_counter() - start:3.0f} s, {written:.1f} GB written", end=end, flush=True)


def main() -> None:
    if sys.version_info < (3, 11):
        stop(f"Python {sys.version.split()[0]} found, 3.11 or newer needed. Choose one: make tour PYTHON=python3.12")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch", default="")
    parser.add_argument("--extra", action="append", default=["dev", "codecs", "docs", "ecg", "formats", "ray"])
    options = parser.parse_args()
    start = time.perf_counter()
    size = {"": "about 7 GB with CUDA torch", "cpu": "about 2 GB"}.get(options.torch, "torch from a folder")
    print(f"setting up {options.venv} ({size}; a slow network is the slow part)", flush=True)
    python = make_venv(options.venv)
    uv = python.with_name("uv")
    if not uv.exists() and not uv.with_suffix(".exe").exists():
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True)
    wanted = f"{ROOT}[{','.join(options.extra)}]"
    command = [str(uv), "pip", "install", "--quiet", *torch_options(options.torch, options.venv), "--editable", wanted]
    if run_with_progress(command, uv_environment(python), options.venv):
        stop("the packages could not be installed; the lines above say why.\n"
             "Behind a proxy set HTTPS_PROXY, and SSL_CERT_FILE to your company's certificate; "
             "with a package mirror set PIP_INDEX_URL."
             + (" TORCH=cpu also needs download.pytorch.org: leave it out, or name a folder of wheels." if options.torch == "cpu" else ""))
    print(f"set up in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
