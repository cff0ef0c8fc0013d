"""`predict` chunk by chunk on 1, 2 and 3 ranks: the same table, also if another number of ranks resumes it."""

import csv

import numpy as np
import pytest
from ranks import _commands, run_command_on_ranks, run_on_ranks
from small_run import SMALL

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.inference.tagged_files import TaggedFile
from genre_lightning.training import predict

ROWS = 23


def tag(rank, world_size, words, fail_at, meetings):
    """Chunks of 5 rows; the first rank fails to write one of them."""
    predict.CHUNK_ROWS = 5
    write_part = TaggedFile.write_part

    def write(self, number, films, logits):
        if number == fail_at:
            raise OSError(28, "No space left on device")
        write_part(self, number, films, logits)

    TaggedFile.write_part = write
    _commands(rank, world_size, [words], True, meetings)


@pytest.fixture(scope="module")
def run_and_films(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    sample = write_sample(place / "sample.csv", films=93, seed=1)
    fit = ["fit", f"--data.csv={sample}", f"--run_dir={place / 'run'}", *SMALL, "--trainer.max_epochs=1"]
    run_command_on_ranks(1, fit)
    with sample.open(newline="", encoding="utf-8") as file:
        overviews = [row["overview"] for row in csv.DictReader(file) if len(row["overview"]) > 60]
    films = place / "films.csv"
    with films.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "overview"])
        # the third chunk holds no text at all, the second but one
        writer.writerows([n, "" if 6 <= n < 15 else overviews[n]] for n in range(ROWS))
    return place / "run", films


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [row[:4] for row in rows], np.array([[float(cell or "nan") for cell in row[4:]] for row in rows])


def test_any_number_of_ranks_writes_the_same_table(run_and_films, tmp_path):
    run, films = run_and_films
    words = ["predict", str(run), f"--data.csv={films}"]
    tables = {}
    for ranks, strategy in ((1, "auto"), (2, "ddp"), (3, "fsdp")):
        out = tmp_path / f"{ranks}.csv"
        more = [f"--out={out}", f"--trainer.devices={ranks}", f"--trainer.strategy={strategy}"]
        run_on_ranks(tag, ranks, ranks, [*words, *more], None, tmp_path)
        tables[ranks] = table(out)
    cells, figures = tables[1]
    assert [row[0] for row in cells] == [str(n) for n in range(ROWS)]
    assert [row[3] for row in cells] == ["missing_overview" if 6 <= n < 15 else "" for n in range(ROWS)]
    for other in tables.values():
        assert other[0] == cells
        np.testing.assert_allclose(other[1], figures, atol=1e-5)
    # cut off on two ranks, gone on with on one
    out = tmp_path / "again.csv"
    words += [f"--out={out}"]
    with pytest.raises(AssertionError, match=r"(?s)status 1.*No space left on device"):
        run_on_ranks(tag, 2, 2, [*words, "--trainer.devices=2", "--trainer.strategy=ddp"], 2, tmp_path)
    assert not out.exists()
    run_on_ranks(tag, 1, 1, [*words, "--trainer.devices=1", "--trainer.strategy=auto"], 1, tmp_path)
    assert table(out)[0] == cells
