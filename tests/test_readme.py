"""The commands and the script of the README work as they stand, on small data; its links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genre_lightning.data.sample.generate import write_sample

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "slurm" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
SMALL = ["--model.backbone=small", "--data.tokenizer=wordpiece", "--trainer.max_epochs=1"]
"""What makes a training of the README small; later options win."""
ON_CPU = ["--trainer.devices=1", "--trainer.accelerator=cpu"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "genre-lightning":
                yield words[1:]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("GENRE_LIGHTNING_CACHE", str(tmp_path / "cache"))
    write_sample(tmp_path / "movies_metadata.csv", films=120, seed=0)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands_run(place):
    found = list(commands())
    assert {words[0] for words in found} >= {"data", "fit", "tag", "plan", "submit", "status"}
    for words in found:
        if words[:2] == ["data", "download"]:  # the one that needs the network
            continue
        if words[0] == "status":
            words = ["status", *sorted(str(path) for path in Path("runs").iterdir())]
        elif words[0] in ("fit", "submit"):
            words = [*words, *SMALL, *(ON_CPU if words[0] == "fit" else ())]
        # a process each, as a user starts them: a training sets what its ranks need
        done = subprocess.run([sys.executable, "-m", "genre_lightning", *words], capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"


@pytest.mark.timeout(120)
def test_script_runs(place):
    (script,) = blocks("python")
    script = script.replace('"distilbert-base-uncased"', '"small"').replace(
        "global_batch_size=32", "global_batch_size=64"
    )
    script = script.replace('precision="bf16-mixed"', 'accelerator="cpu", enable_progress_bar=False, logger=False')
    exec(compile(script.replace("max_epochs=3", "max_epochs=1"), "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    generated = {ROOT / "docs" / "reference" / name for name in ("commands.md", "options.md")}
    for link in re.findall(r"\]\(([^)#\s]+)|(?:src|srcset)=\"([^\"]+)\"", text):
        target = link[0] or link[1]
        if not re.match(r"https?:|mailto:", target):
            path = (page.parent / target).resolve()
            assert path.exists() or path in generated, target


def test_readme_is_short():
    assert len(README.splitlines()) < 200
