"""A file of papers and subjects, by configuration alone, as docs/tutorials/other-data.md shows it."""

import json
import re
from pathlib import Path

import numpy as np
import yaml

from genre_lightning.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "other-data.md"
WORDS = {
    "cs.CL": "sentence parser grammar",
    "stat.ML": "regression variance kernel",
    "math.PR": "martingale walk measure",
}


def write_papers(path, rows=150):
    dice = np.random.default_rng(4)
    lines = ["Paper,Heading,Abstract,Subjects"]
    for number in range(rows):
        subjects = [name for name in WORDS if dice.random() < 0.5] or ["cs.CL"]
        words = [word for name in subjects for word in dice.choice(WORDS[name].split(), 6)]
        lines.append(
            f"21{number:02}.{number:05},Paper {number},We study {' '.join(words)} {number}.,{'; '.join(subjects)}"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_papers_by_configuration_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_papers(tmp_path / "papers.csv")
    config = re.search(r'```yaml title="papers.yaml"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    data = yaml.safe_load(config)["data"]
    (tmp_path / "papers.yaml").write_text(yaml.safe_dump({"data": data}))
    assert main(["baseline", "tfidf_nb", "--config", "papers.yaml", "--run_dir", "run", "--model.min_films=1"]) == 0
    audit = json.loads((tmp_path / "run/data_audit.json").read_text())
    assert (audit["rows"], audit["kept"]) == (150, 150)
    assert set(audit["splits"]["train"]["genres"]) == set(WORDS)
    capsys.readouterr()
    assert main(["tag", "run", "--top_k=1", "--json", "A martingale and a random walk under a measure."]) == 0
    assert json.loads(capsys.readouterr().out)["genres"][0]["name"] == "math.PR"
