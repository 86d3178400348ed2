"Jobs for the tests of workers and batches: what files can do to the program that reads them."

import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medkit.errors import DataError


def act(path: Path, write, options: dict, beat) -> dict:
    "Do what the file says, then write its text in capitals."
    text = path.read_text()
    word, _, rest = text.partition(" ")
    if word == "refuse":
        raise DataError("truncated", f"{path.name} is cut", "copy it again")
    if word == "odd":
        write(f"{options['id']}.txt", b"half")
        raise ValueError("a secret name")
    if word == "hang":
        time.sleep(60)
    if word == "segfault":
        ctypes.string_at(0)
    if word == "exit":
        os._exit(7)
    if word == "eat":
        return {"letters": len(bytearray(8 << 30))}
    if word == "noise":
        os.write(1, b"{}\n" * 1000), os.write(2, b"panicked\n" * 1000)
    if word == "slow":
        time.sleep(float(rest))
    if word == "frames":
        for number in range(int(rest)):
            time.sleep(0.3)
            write(f"{options['id']}/{number}.txt", b"frame")
            beat()
        return {}
    write(f"{options['id']}.txt", text.upper().encode())
    identity = {"identity": f"{int(rest):016x}"} if word == "same" else {}
    return {"letters": len(text), **identity}


def victim(item: str) -> str:
    "Die at the first sight of an item, work at the second: somebody else's fault."
    mark = Path(item)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return "done"


class Stop(BaseException):
    "Ends a job from within `on_progress`, as Ctrl-C does."


def stop_at(count: int) -> Callable:
    "An `on_progress` that ends the job when `count` inputs are done."

    def stop(done, total, row):
        if done == count:
            raise Stop

    return stop


@contextmanager
def nested(folder: Path, name: str, text: str = "") -> Iterator[None]:
    "1,200 folders inside each other below `folder`, with one file in the last; deeper than Python's own way of removing them."
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path(name).write_text(text)
        os.chdir(here)
        yield
    finally:
        os.chdir(here)
        subprocess.run(["find", folder / "d", "-delete"], check=True)
