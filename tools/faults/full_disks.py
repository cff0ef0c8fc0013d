"""Fills the disk under small real runs at many moments, frees it, and compares what they end as with an unbroken run.

`python tools/faults/full_disks.py --number 20` gives each run a file system of memory that it outgrows, for the run
directory or the cache; needs root. The run must end in one line that names the place and the fix, and the same command
with free space must end as the unbroken run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Setting, make_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 256 << 20
"""Bytes of a disk that no start fills."""
DISKS = ("run", "cache")
NOTHING = "nothing"
"""Could not be written: the disk was large enough."""


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """Mount a file system of memory that takes a number of bytes."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def resize(place: Path, size: int) -> None:
    """Give a mounted disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def start(setting: Setting, place: Path) -> tuple[int, list[str]]:
    """Run the command once; return its exit status and the lines of its standard error."""
    environment = os.environ | {"GENRE_LIGHTNING_CACHE": str(place / "cache/films")}
    words = ["fit", f"--data.csv={setting.csv}", f"--run_dir={place / 'run/run'}", *setting.options]
    done = subprocess.run(
        [sys.executable, "-m", "genre_lightning", *words],
        env=environment, capture_output=True, text=True, timeout=setting.seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.strip().splitlines()


def used(place: Path) -> int:
    """Return the bytes in use on a mounted disk."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def fill_and_finish(setting: Setting, place: Path, name: str, size: int, unbroken: Path) -> tuple[str, list[str]]:
    """Start a run on a small disk, free the disk, start it again, and compare it with the unbroken run.

    Args:
        setting: What is run.
        place: Folder of the disks.
        name: The disk that is small.
        size: Its bytes.
        unbroken: Copy of the unbroken run.

    Returns:
        What could not be written, and what is wrong; nothing if all is as it should be.
    """
    from outcome import differences

    place.mkdir()
    sizes = dict.fromkeys(DISKS, LARGE) | {name: size}
    with disk(place / "run", sizes["run"]), disk(place / "cache", sizes["cache"]):
        status, lines = start(setting, place)
        if status == 0:
            return NOTHING, []
        problems = []
        last = lines[-1] if lines else ""
        if status not in (1, 2):
            problems.append(f"exit status {status}: {last}")
        if not last.startswith("genre-lightning: ") or "free space" not in last:
            problems.append(f"the last line does not name the fix: {last}")
        if any(line.startswith("Traceback") for line in lines):
            problems.append(f"a traceback before: {last}")
        resize(place / name, LARGE)
        status, lines = start(setting, place)
        if status:
            problems.append(f"the same command with free space ends with {status}: {' '.join(lines[-1:])}")
        else:
            problems += differences(unbroken, place / "run/run")
    found = re.search(rf"{re.escape(str(place))}/(?:run/run|cache/films)/?(\S*)", last)
    return f"{name}/{re.sub('[0-9a-f]{8,}', 'KEY', found[1]) if found else '?'}", problems


def main() -> int:
    """Fill disks of many sizes, and print what could not be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=20, help="disks of each kind")
    parser.add_argument("--model", default="encoder", choices=["encoder", "qlora"])
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="full-disks-"))
    setting = replace(make_setting(place, "auto", 1, options.model, []), seconds=600)
    unbroken, first = place / "unbroken", place / "first"
    first.mkdir()
    with disk(first / "run", LARGE), disk(first / "cache", LARGE):
        status, lines = start(setting, first)
        if status:
            raise SystemExit(f"the run without a full disk fails: {' '.join(lines[-1:])}")
        shutil.copytree(first / "run/run", unbroken)
        whole = {name: used(first / name) for name in DISKS}
    struck, wrong = Counter[str](), []
    for name in DISKS:
        for number in range(options.number):
            size = max(whole[name] * (number + 1) // (options.number + 1), 4096) // 4096 * 4096
            stopped, problems = fill_and_finish(setting, place / f"{name}{number}", name, size, unbroken)
            struck[stopped] += 1
            wrong += [f"{name} of {size:,} bytes: {problem}" for problem in problems]
            print(f"{name} {number + 1}/{options.number}, {size:,} bytes: {stopped}", problems or "", flush=True)
    filled = sum(struck.values()) - struck.pop(NOTHING, 0)
    print(f"\n{options.model}: {filled} disks filled up; not written:")
    print("\n".join(f"{count:>4}  {what}" for what, count in struck.most_common()))
    print("\n".join(wrong) if wrong else "each ended in a line with the fix, and then as the unbroken run")
    if not wrong:
        shutil.rmtree(place)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
