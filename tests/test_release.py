"""One version: the package's, the changelog's newest release and the citation's."""

import re
from pathlib import Path

import yaml

from genre_lightning import __version__

ROOT = Path(__file__).resolve().parent.parent


def test_changelog_and_citation_have_the_packages_version():
    newest, date = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == (newest, date)
    # between two releases the package has the next version with .dev0
    assert __version__ == newest or __version__.endswith(".dev0")
