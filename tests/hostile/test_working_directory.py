"""The working directory of a command may be a stranger's checkout: what its tools' settings name is not run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from genre_lightning import provenance
from genre_lightning.__main__ import main


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository whose configuration names programs; each leaves a file."""
    place = tmp_path / "checkout"
    place.mkdir()
    monkeypatch.chdir(place)

    def git(*words):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *words], check=True, capture_output=True)

    git("init")
    Path("a").write_text("a")
    git("add", "a")
    git("commit", "-m", "first")
    Path("a").write_text("b")
    Path(".gitattributes").write_text("* filter=stranger")
    program = f"touch {tmp_path / 'it_ran'}; false"
    for key in ("core.fsmonitor", "filter.stranger.clean", "core.pager", "core.sshCommand", "diff.external"):
        git("config", key, program)
    return place


def test_no_program_of_the_checkouts_configuration_is_run(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)  # installed elsewhere
    provenance.git_commit.cache_clear()
    try:
        commit = provenance.git_commit()
    finally:
        provenance.git_commit.cache_clear()
    assert not (tmp_path / "it_ran").exists()
    assert len(commit) == 40


def test_a_package_within_a_strangers_checkout(checkout, tmp_path, monkeypatch):
    """Such as in a virtual environment that lies there."""
    (checkout / "venv").mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", checkout / "venv")
    provenance.git_commit.cache_clear()
    try:
        provenance.git_commit()
    finally:
        provenance.git_commit.cache_clear()
    assert not (tmp_path / "it_ran").exists()


def test_plots_do_not_obey_a_matplotlibrc(tmp_path):
    """One of the working directory is read when matplotlib is imported, so in a process of its own."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\ntext.latex.preamble: \\\\input{/etc/passwd}\n")
    code = (
        "import matplotlib as mpl; assert mpl.rcParams['text.usetex']\n"
        "from genre_lightning.evaluation.plots.style import one_axes, save_figure\n"
        "figure, axes = one_axes('title'); axes.set_title('x'); save_figure(figure, 'f.png')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("tracked", "shown"), [(True, r" \([0-9a-f]{40}-dirty\)"), (False, "")])
def test_the_version_names_the_commit_of_the_packages_own_checkout(tracked, shown, checkout, monkeypatch, capsys):
    package = checkout / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    subprocess.run(["git", "config", "--unset", "core.fsmonitor"], check=True)
    if tracked:
        subprocess.run(["git", "add", package], check=True)
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    assert main(["--version"]) == 0
    assert re.fullmatch(rf"genre-lightning \d+\.\d+\.\d+\S*{shown}\n", capsys.readouterr().out)
