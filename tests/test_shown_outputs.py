"""What the documentation shows of commands is what they print."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "shown_outputs.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("shown_outputs", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "output_of", lambda arguments: [" ".join(arguments), "memory 8.19", "time 3 s"])
    return module


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_documentation_shows_what_the_commands_print():
    """In a process of its own, as the hub's client reads where its cache is once."""
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parent.parent)}
    done = subprocess.run([sys.executable, TOOL], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"run 'python tools/shown_outputs.py --write':\n{done.stdout}{done.stderr[-2000:]}"
    assert "```console\n$ genre-lightning plan" in (TOOL.parent.parent / "docs" / "plan.md").read_text()


@pytest.mark.parametrize(
    ("shown", "now"),
    [
        ("plan --a --b\nmemory 6.81\ntime 3 s\n", "plan --a --b\nmemory 8.19\ntime 3 s\n"),
        ("plan --a --b\n…\ntime 2 s\n", "plan --a --b\n…\ntime 3 s\n"),
        ("plan --a --b\n…\n", "plan --a --b\n…\n"),
    ],
)
def test_an_output_out_of_date_is_found_and_renewed(tool, tmp_path, shown, now, capsys):
    page = tmp_path / "page.md"
    block = "Before.\n\n```console\n$ genre-lightning plan --a \\\n      --b\n{}```\n\n```sh\nanything\n```\n"
    page.write_text(block.format(shown))
    assert tool.check([page], write=False) == (shown == now)
    assert page.read_text() == block.format(shown)
    tool.check([page], write=True)
    assert page.read_text() == block.format(now)
    assert tool.check([page], write=False)


def test_a_console_block_of_another_program_is_refused(tool):
    with pytest.raises(SystemExit, match=r"not '\$ rm"):
        tool.renewed("$ rm -r /\n", "page.md")
