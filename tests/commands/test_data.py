"""`data inspect` prints what the files of a run would say of the same films."""

import json

from genre_lightning.__main__ import main


def test_inspect(sample_csv, capsys):
    assert main(["data", "inspect", str(sample_csv), "--json=true"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kept"] == facts["films_used"] == sum(split["films"] for split in facts["splits"].values())
    assert main(["data", "inspect", str(sample_csv)]) == 0
    out = capsys.readouterr().out
    assert f"{facts['rows']:,} rows" in out
    assert facts["splits"]["train"]["ids_sha256"][:16] in out
