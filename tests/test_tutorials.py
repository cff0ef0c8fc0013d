"""The tutorials' commands work as they stand, and print what the pages show."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "tutorials.py"
PAGES = sorted((TOOL.parent.parent / "docs" / "tutorials").glob("*.md"))
LONG = ("llama", "several-devices")
"""Minutes each, of what other tests show too."""
OF_ONE_PROCESSOR = ("keep-learning",)
"""Trains in bf16 on a processor that multiplies it, and its tables differ then: compared where it was made."""
LEFT_OUT = (*LONG, *OF_ONE_PROCESSOR)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=getattr(pytest.mark, "thorough" if page.stem in LEFT_OUT else "slow"))
        for page in PAGES
    ],
)
def test_a_reader_can_follow(page):
    """In a process of its own: a page changes the environment, and its commands start ranks and servers."""
    if "$ curl " in page.read_text(encoding="utf-8") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, TOOL, page], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"run 'python tools/tutorials.py --write':\n{done.stdout[-4000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.with_suffix(".ipynb").is_file()], ids=lambda p: p.stem)
def test_a_notebook_is_its_page(page, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    from notebooks import notebook_of

    written = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == notebook_of(page.read_text(encoding="utf-8")), "run 'python tools/tutorials.py --write'"
    cells = json.loads(written)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[0].startswith("!genre-lightning ")
    for source in code[1:]:
        compile(source, "a cell", "exec")
    assert all(cell["outputs"] for cell in cells if "print(" in "".join(cell["source"]) and cell["cell_type"] == "code")


def test_numbers_and_progress_are_not_a_difference(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import tutorials

    page = tmp_path / "page.md"
    shown = "".join(f"line {number} of 0.41 [0.3, 0.5]\n" for number in range(12))
    page.write_text(f"```console\n$ printf 'epoch 1/2  step 3\\n'; seq -f 'line %g of 0.5 [0.1, 0.9]' 12\n{shown}```\n")
    assert tutorials.check(page, write=False)
    page.write_text(page.read_text().replace(" of 0.41", " from 0.41"))
    assert not tutorials.check(page, write=False)
    page.write_text("```console\n$ false\n```\n")
    with pytest.raises(SystemExit, match="'false' ended with status 1"):
        tutorials.check(page, write=False)
