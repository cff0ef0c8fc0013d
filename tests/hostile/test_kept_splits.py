"""The splits belong to the run: no flag and no file moves a film, and a start that is refused changes nothing."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csv_files import rows_of, written
from made_runs import everything_under, trained_baseline, without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.files import read_json, write_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def sample(trained):
    return trained.parent / "sample.csv"


@pytest.fixture
def nb(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "nb")


@pytest.fixture(scope="module")
def fitted(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("fitted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        assert main(["fit", f"--data.csv={sample}", f"--run_dir={place}", *SMALL, "--trainer.max_epochs=1"]) == 0
    return place


@pytest.fixture
def encoder(fitted, tmp_path):
    return shutil.copytree(fitted, tmp_path / "run")


def refused(capfd, arguments, *words):
    """Runs a command that must end with status 2, and whose last line holds the words."""
    assert main([str(word) for word in arguments]) == 2
    err = capfd.readouterr().err
    assert err.count("genre-lightning: ") == 1, err
    line = err.splitlines()[-1]
    assert line.startswith("genre-lightning: "), err
    for word in words:
        assert word in line


def test_the_sides_are_kept_by_id_and_text(trained, sample):
    kept = KeptSplits.read(trained / "splits.parquet")
    data = MovieDataModule(sample).prepare_films()
    for side, split in data.splits.items():
        ids = data.films.ids[data.rows[split.films]].tolist()
        assert sorted(ids) == sorted(int(name) for name, one in zip(kept.ids, kept.sides, strict=True) if one == side)
    assert len(set(kept.digests)) <= len(kept.ids)
    assert all(len(digest) == 16 for digest in kept.digests)


SPLITS = [["--data.seed=1"], ["--data.split=[0.6, 0.2, 0.2]"], ["--data.split=[0.8, 0.2]"], ["--data.max_films=100"]]


@pytest.mark.parametrize("more", SPLITS)
def test_settings_that_move_films_are_refused_once_a_run_is_trained(trained, fitted, capfd, more):
    before = [everything_under(place) for place in (trained, fitted)]
    name = more[0].split("=")[0].lstrip("-")
    for command in (["baseline", "tfidf_nb", f"--run_dir={trained}"], ["fit", f"--run_dir={fitted}"],
                    ["test", f"--run_dir={fitted}"]):  # fmt: skip
        refused(capfd, [*command, *more, "--override"], name, "take those back")
    refused(capfd, ["validate", f"--run_dir={fitted}", *more], name, "take those back")
    assert [everything_under(place) for place in (trained, fitted)] == before


@pytest.mark.parametrize("kind", ["subset", "more", "texts", "other"])
def test_files_that_move_films_are_refused_once_a_run_is_trained(trained, fitted, sample, tmp_path, capfd, kind):
    rows = rows_of(sample)
    other = tmp_path / "other.csv"
    if kind == "other":
        write_sample(other, films=200, seed=9)
    else:
        extra = {**rows[-1], "id": "987654", "overview": "A text of its own that nobody has told before."}
        changed = [{**row, "overview": row["overview"] + " And so on."} if row["overview"] else row for row in rows]
        written(other, {"subset": rows[::2], "more": [*rows, extra], "texts": changed}[kind])
    before = [everything_under(place) for place in (trained, fitted)]
    for command in (["baseline", "tfidf_nb", f"--run_dir={trained}"], ["fit", f"--run_dir={fitted}"],
                    ["test", f"--run_dir={fitted}"]):  # fmt: skip
        refused(capfd, [*command, f"--data.csv={other}", "--override"], "other films", "genre-lightning evaluate RUN")
    refused(capfd, ["validate", f"--run_dir={fitted}", f"--data.csv={other}"], "other films")
    assert [everything_under(place) for place in (trained, fitted)] == before


def test_a_file_in_another_order_keeps_every_side(nb, sample, tmp_path, capfd, monkeypatch):
    without_page(monkeypatch)
    reverse = written(tmp_path / "reverse.csv", rows_of(sample)[::-1])
    before = read_json(nb / "evaluation" / "test" / "metrics.json")
    assert main(["baseline", "tfidf_nb", f"--run_dir={nb}", f"--data.csv={reverse}", "--override"]) == 0
    after = read_json(nb / "evaluation" / "test" / "metrics.json")
    assert after["split_sha256"] == before["split_sha256"]
    assert after["n"] == before["n"]


def test_sides_are_not_drawn_again(nb, sample, monkeypatch):
    def drawn(*args):
        raise AssertionError("the splits were drawn again")

    monkeypatch.setattr("genre_lightning.data.prepare.split_films", drawn)
    assert main(["baseline", "tfidf_nb", f"--run_dir={nb}"]) == 0


def test_a_run_of_a_version_that_kept_no_sides_still_opens(encoder, nb, monkeypatch, capfd, tmp_path):
    without_page(monkeypatch)
    for place in (encoder, nb):
        (place / "splits.parquet").unlink()
    assert main(["test", f"--run_dir={encoder}"]) == 0
    other = write_sample(tmp_path / "other.csv", films=200, seed=9)
    for command in (["test", f"--run_dir={encoder}"], ["fit", f"--run_dir={encoder}"],
                    ["baseline", "tfidf_nb", f"--run_dir={nb}"]):  # fmt: skip
        capfd.readouterr()
        refused(capfd, [*command, f"--data.csv={other}", "--override"], "other films")
    assert main(["baseline", "tfidf_nb", f"--run_dir={nb}"]) == 0
    assert (nb / "splits.parquet").is_file()


def as_an_earlier_version_left_it(run):
    """Take out the options and the note of the reading that came later; its digest of the films is another."""
    config = run / "config.yaml"
    later = ("  encoding:", "  merge_genre_case:", "  max_malformed:", "  cache_group_writable:")
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith(later)))
    state = read_json(run / "run_state.json")
    state["data"].pop("reading", None)
    write_json(run / "run_state.json", {**state, "data": {**state["data"], "films": "another"}})


def test_a_run_of_an_earlier_reading_continues(nb, encoder, sample, monkeypatch, capfd):
    without_page(monkeypatch)
    for run, command in ((nb, ["baseline", "tfidf_nb"]), (encoder, ["test"]), (encoder, ["fit"])):
        as_an_earlier_version_left_it(run)
        assert main([*command, f"--run_dir={run}"]) == 0, capfd.readouterr().err


def test_a_run_of_an_earlier_reading_refuses_other_genres(nb, sample, tmp_path, capfd):
    as_an_earlier_version_left_it(nb)
    other = tmp_path / "other.csv"
    other.write_text(sample.read_text(encoding="utf-8").replace("'Drama'", "'Dramas'"), encoding="utf-8")
    refused(capfd, ["baseline", "tfidf_nb", f"--run_dir={nb}", f"--data.csv={other}"], "started with other films")


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.drop_columns(["split"]),
        lambda table: table.set_column(2, "split", pa.array(["train"] * len(table))),
        lambda table: table.set_column(0, "id", pa.array(["1"] * len(table))),
        lambda table: table.set_column(1, "text_digest", pa.array([b"x"] * len(table))),
        None,
    ],
)
def test_sides_that_are_damaged_are_refused(nb, capfd, damage):
    path = nb / "splits.parquet"
    if damage is None:
        path.write_bytes(path.read_bytes()[:100])
    else:
        pq.write_table(damage(pq.read_table(path)), path)
    refused(capfd, ["baseline", "tfidf_nb", f"--run_dir={nb}"], "splits.parquet is damaged", "copy it")


def test_nothing_trained_yet_takes_other_splits_with_override(trained, sample, tmp_path, monkeypatch):
    without_page(monkeypatch)
    place = tmp_path / "new"
    words = ["baseline", "tfidf_nb", f"--data.csv={sample}", f"--run_dir={place}"]
    with monkeypatch.context() as patch:
        patch.setattr("genre_lightning.training.baseline._train_and_evaluate", lambda *args: {})
        main(words)
    assert main([*words, "--data.seed=4"]) == 2
    assert main([*words, "--data.seed=4", "--override"]) == 0
    kept = [KeptSplits.read(run / "splits.parquet") for run in (place, trained)]
    assert kept[0].ids == kept[1].ids
    assert kept[0].sides != kept[1].sides


REFUSALS = [
    ["--model.architecture={layers: 2, width: 32, heads: 2, inner_width: 64}", "--override"],
    ["--model.architecture={layers: 1, width: 64, heads: 2, inner_width: 64}", "--override"],
    ["--model.lr=0.5"],
    ["--model.lr=-1", "--override"],
    ["--trainer.max_epochs=0", "--override"],
    ["--model=genre_lightning.models.zero_shot.ZeroShotClassifier", "--override"],
    ["--data.max_tokens=1", "--override"],
    ["--data.text={nosuch}", "--override"],
    ["--data.csv=nosuch.csv", "--override"],
    ["--checkpoint.monitor=val/f2", "--override"],
    ["--trainer.precision=16-mixed", "--override"],
]


@pytest.mark.parametrize("more", REFUSALS, ids=lambda more: more[0][2:40])
def test_a_start_that_is_refused_changes_nothing(fitted, capfd, more):
    before = everything_under(fitted)
    refused(capfd, ["fit", f"--run_dir={fitted}", *more])
    assert everything_under(fitted) == before


OTHER_SETTINGS = [
    ["--model.lr=0.5"],
    ["--data.text={title}"],
    ["--data.max_tokens=8"],
    ["--model.ema_decay=0.9"],
    ["--seed=7"],
]


@pytest.mark.parametrize("more", OTHER_SETTINGS, ids=lambda more: more[0][2:])
def test_settings_that_did_not_train_a_finished_run_never_evaluate_it(fitted, capfd, more):
    before = everything_under(fitted)
    refused(capfd, ["fit", f"--run_dir={fitted}", *more, "--override"], "has trained all of its", "trainer.max_epochs")
    for command in ("test", "validate"):
        refused(capfd, [command, f"--run_dir={fitted}", *more, "--override"], "with the settings that trained it")
    assert everything_under(fitted) == before


def test_genres_that_did_not_train_a_finished_run_never_evaluate_it(fitted, sample, tmp_path, capfd):
    rows = rows_of(sample)
    other = written(
        tmp_path / "other.csv", [{**row, "genres": row["genres"].replace("Drama", "Comedy")} for row in rows]
    )
    before = everything_under(fitted)
    refused(capfd, ["fit", f"--run_dir={fitted}", f"--data.csv={other}", "--override"], str(fitted))
    for command in ("test", "validate"):
        refused(
            capfd, [command, f"--run_dir={fitted}", f"--data.csv={other}", "--override"], "genre-lightning evaluate"
        )
    assert everything_under(fitted) == before


def test_no_room_for_checkpoints_changes_nothing(encoder, sample, tmp_path, capfd, monkeypatch):
    def full(folder, needed):
        raise OSError("it needs 9 GB and the disk has 1 GB free")

    monkeypatch.setattr("genre_lightning.training.callbacks.checkpoints.check_space", full)
    before = everything_under(encoder)
    assert main(["fit", f"--run_dir={encoder}", "--trainer.max_epochs=2", "--override"]) == 2
    assert everything_under(encoder) == before
    assert main(["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'new'}", *SMALL]) == 2
    assert "no room for the checkpoints" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_a_baseline_that_is_refused_changes_nothing(nb, capfd):
    before = everything_under(nb)
    refused(capfd, ["baseline", "tfidf_nb", f"--run_dir={nb}", "--override", "--model.min_films=100000"], "min_films")
    assert everything_under(nb) == before


def test_metrics_and_report_name_what_made_them(fitted, tmp_path):
    from genre_lightning import __version__
    from genre_lightning.evaluation.report import write_report

    run = shutil.copytree(fitted, tmp_path / "run")
    training = read_json(run / "run_state.json")["training"]
    assert (training["learning_rate"], training["head_learning_rate"]) == (1e-3, 1e-3)
    assert training["best_epoch"] == 1
    assert training["best_step"] == read_json(run / "run_state.json")["steps"]
    for split in ("validation", "test"):
        metrics = read_json(run / "evaluation" / split / "metrics.json")
        assert metrics["training"] == training
        assert metrics["made_by"].keys() == {"version", "git_commit", "date", "host", "device"}
        assert metrics["made_by"]["version"] == __version__
        assert metrics["made_by"]["device"].startswith("cpu")
    page = write_report(run).read_text()
    for words in ("0.001, head 0.001", "epoch 1, optimizer step", f"genre-lightning {__version__}"):
        assert words in page
    assert training["host"] in page
