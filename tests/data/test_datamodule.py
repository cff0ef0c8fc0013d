"""The data module on the embedded sample: what it checks, prepares, counts and distributes."""

import csv
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from genre_lightning.data.datamodule import MovieDataModule, padding_of
from genre_lightning.data.films import load_films
from genre_lightning.data.movies import Audit, check_data
from genre_lightning.data.splits import ids_digest
from genre_lightning.data.texts import LazyTexts
from genre_lightning.errors import ConfigError, DataError


def module(path, **options):
    return MovieDataModule(path, **{"tokenizer": "wordpiece", "vocab_size": 500, "max_tokens": 64, **options})


@pytest.fixture(scope="module")
def data(sample_csv):
    return module(sample_csv).prepare()


def test_the_splits_are_a_partition_of_the_films(data):
    parts = [split.films for split in data.splits.values()]
    assert list(data.splits) == ["train", "validation", "test"]
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    assert [len(part) for part in parts] == pytest.approx([240, 30, 30], abs=12)
    overviews = [set(data.films.strings("overview", data.rows[part])) for part in parts]
    assert not overviews[0] & overviews[1]
    assert not overviews[0] & overviews[2]
    assert not overviews[1] & overviews[2]


def test_labels_texts_and_tokens_belong_together(data):
    genres = data.films.genres()
    for split in data.splits.values():
        assert data.vocabulary.decode(split.labels) == [sorted(genres[data.rows[film]]) for film in split.films]
    texts = data.films.strings("text")
    for film in (0, 17, 299):
        own = data.tokenizer(texts[data.rows[film]], truncation=True, max_length=64)["input_ids"]
        assert data.tokens[film].tolist() == own


def test_the_audit(data, sample_csv):
    audit = data.audit
    assert list(audit)[:7] == list(Audit().as_dict())
    assert (audit["file"], audit["kept"], audit["films_used"]) == (sample_csv.name, 300, 300)
    assert audit["validation_is_test"] is False
    for name, split in data.splits.items():
        ids = data.films.ids[data.rows[split.films]]
        assert audit["splits"][name]["ids_sha256"] == split.sha256 == ids_digest(ids)
        assert audit["splits"][name]["films"] == len(split.films)
        assert audit["splits"][name]["genres"] == data.vocabulary.counts(split.labels)


def test_the_paper_protocol(sample_csv):
    data = module(sample_csv, split=[0.8, 0.2]).prepare()
    assert data.splits["validation"] is data.splits["test"] or np.array_equal(
        data.splits["validation"].films, data.splits["test"].films
    )
    assert len(data.splits["train"].films) + len(data.splits["test"].films) == 300
    assert data.audit["validation_is_test"] is True
    assert data.audit["films_used"] == 300


def test_a_subset(sample_csv, data):
    first, again, other = (module(sample_csv, max_films=150, seed=seed).prepare() for seed in (0, 0, 1))
    assert len(first.rows) == len(set(first.rows.tolist())) == 150
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)
    assert len(first.tokens) == 150
    texts = first.films.strings("text")
    own = first.tokenizer(texts[first.rows[70]], truncation=True, max_length=64)["input_ids"]
    assert first.tokens[70].tolist() == own
    assert first.audit["kept"] == 300
    assert first.audit["films_used"] == 150
    assert np.array_equal(module(sample_csv, max_films=9999).prepare().splits["test"].films, data.splits["test"].films)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": [0.8, 0.3]}, r"data\.split"),
        ({"max_tokens": 2}, r"data\.max_tokens is 2"),
        ({"max_tokens": 0}, r"data\.max_tokens is 0"),
        ({"global_batch_size": 0}, r"data\.global_batch_size is 0"),
        ({"micro_batch_tokens": -1}, r"data\.micro_batch_tokens is -1"),
        ({"vocab_size": 0}, r"data\.vocab_size is 0"),
        ({"max_films": 0}, r"data\.max_films is 0"),
        ({"seed": -1}, r"data\.seed is -1"),
        ({"num_workers": -2}, r"data\.num_workers is -2"),
    ],
)
def test_impossible_options_are_refused(sample_csv, options, words):
    with pytest.raises(ConfigError, match=words):
        check_data(module(sample_csv, **options).options)


def test_the_file_is_checked_and_nothing_read(sample_csv, tmp_path):
    check_data(module(sample_csv, cache_dir=tmp_path / "cache").options)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DataError, match="no such file"):
        check_data(module(tmp_path / "none.csv").options)
    with pytest.raises(DataError, match="'tagline_x'"):
        check_data(module(sample_csv, text="{tagline_x}").options)
    with pytest.raises(ConfigError, match=r"data\.text"):
        module(sample_csv, text="{overview")


def test_too_few_films_for_the_splits(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "overview", "genres"])
        writer.writerows([[n, "", f"A man walks {n}.", "[{'id': 1, 'name': 'War'}]"] for n in range(2)])
    with pytest.raises(DataError, match=r"2 films make splits of .*use more films"):
        module(path).prepare()


def test_a_tokenizer_must_be_named(sample_csv):
    with pytest.raises(ConfigError, match=r"data\.tokenizer is not set"):
        module(sample_csv, tokenizer=None).prepare()


def test_padding_of_a_tokenizer(data):
    padding = padding_of(data.tokenizer)
    assert data.tokenizer.convert_ids_to_tokens(list(padding.filler)) == ["[CLS]", "[SEP]"]
    assert padding.token == data.tokenizer.pad_token_id


def test_texts_are_taken_in_slices(data):
    rows = np.array([5, 3, 250])
    texts = LazyTexts(data.films, rows)
    all_texts = data.films.strings("text")
    assert (len(texts), texts[1], texts[1:]) == (3, all_texts[3], [all_texts[3], all_texts[250]])


@pytest.mark.parametrize(
    "rows", [np.arange(300), np.array([0, 63, 64, 65, 130, 299]), np.arange(200, 210), np.arange(0)]
)
def test_a_pass_over_texts_gives_those_of_the_table(sample_csv, tmp_path, monkeypatch, rows):
    monkeypatch.setattr("genre_lightning.data.films._BATCH_FILMS", 64)
    films = load_films(MovieDataModule(sample_csv).options.source, tmp_path)
    done = []
    texts = LazyTexts(films, rows, "overview", done.append)
    overviews = films.strings("overview")
    assert list(texts) == list(texts) == [overviews[row] for row in rows] == films.strings("overview", rows)
    assert sum(done) == 2 * len(rows)
    genres = films.genres()
    assert [names for batch in films.batches("genres", rows) for names in batch.to_pylist()] == [
        genres[r] for r in rows
    ]


def test_the_reading_of_a_file_shows_how_far_it_is(sample_csv, tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.data.csv_rows._LINES_BETWEEN_REPORTS", 64)
    lines = len(sample_csv.read_text("utf-8").splitlines())
    seen = []

    @contextmanager
    def progress(task, share):
        yield lambda rows: seen.append((task, rows, share.measure()))

    load_films(MovieDataModule(sample_csv).options.source, tmp_path, progress)
    assert sum(count for _, count, _ in seen) == lines
    assert {task for task, _, _ in seen} == {"Reading films"}
    assert 0 < seen[0][2] <= seen[-1][2] == 1
    load_films(MovieDataModule(sample_csv).options.source, tmp_path, progress)
    assert sum(count for _, count, _ in seen) == lines


def test_a_second_start_reads_no_overview_to_split(sample_csv, tmp_path, monkeypatch):
    options = {"cache_dir": tmp_path, "max_films": 200, "tokenizer": "wordpiece", "vocab_size": 600}
    first = MovieDataModule(sample_csv, **options).prepare()
    monkeypatch.setattr(LazyTexts, "__iter__", lambda self: pytest.fail("the texts are read again"))
    second = MovieDataModule(sample_csv, **options).prepare()
    assert {name: split.sha256 for name, split in first.splits.items()} == {
        name: split.sha256 for name, split in second.splits.items()
    }
    other = MovieDataModule(sample_csv, **{**options, "seed": 1})
    with pytest.raises(pytest.fail.Exception, match="read again"):
        other.prepare_films()


class Recorder(LightningModule):
    """A model of one number that notes which films its steps and validations hold."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop_after = stop_after
        self.steps, self.films, self.validated = [], [], []
        self.micro_batches = []

    def training_step(self, batch, batch_idx):
        self.micro_batches.append(tuple(batch["input_ids"].shape))
        self.films += batch["index"][batch["weights"] > 0].tolist()
        return self.weight.sum()

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.steps.append(sorted(self.films))
        self.films = []

    def on_train_batch_end(self, *args):
        if not self.films and not self.trainer.is_last_batch:
            self.stop_if_due()

    def on_train_epoch_end(self):
        self.stop_if_due()

    def stop_if_due(self):
        """Saves and stops where RunCheckpoint saves: at a step's end, or after the validation of an epoch."""
        if self.stop_after == len(self.steps):
            self.trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    def validation_step(self, batch, batch_idx):
        self.validated += batch["index"][batch["weights"] > 0].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(path, tmp_path, *, epochs=2, budget=256, resume=None, stop_after=None):
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    model, data = Recorder(stop_after), module(path, global_batch_size=32, micro_batch_tokens=budget)
    model.path = tmp_path / "stopped.ckpt"
    try:
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=False)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after
    return model, data


@pytest.fixture(scope="module")
def unbroken(sample_csv, tmp_path_factory):
    return run(sample_csv, tmp_path_factory.mktemp("unbroken"))


pytestmark = [
    # Lightning's advice on worker processes, and its call of a torch function by a name that has changed
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec.*"),
]


def test_a_fit_takes_the_planned_steps(unbroken, sample_csv):
    model, data = unbroken
    films = len(data.prepare().splits["train"].films)
    per_epoch = -(-films // 32)
    assert len(model.steps) == 2 * per_epoch
    for epoch in (0, 1):
        shown = [film for step in model.steps[epoch * per_epoch : (epoch + 1) * per_epoch] for film in step]
        assert sorted(shown) == list(range(films))
    assert all(rows == 1 or rows * tokens <= 256 for rows, tokens in model.micro_batches)
    assert data.trainer.accumulate_grad_batches * len(model.steps) == len(model.micro_batches)
    assert data.state_dict() == {
        "epoch": 2, "step": 0, "micro_batches": data.trainer.accumulate_grad_batches,
        "global_batch_size": data.options.global_batch_size,
    }  # fmt: skip
    validation = len(data.prepare().splits["validation"].films)
    assert sorted(model.validated) == sorted(2 * list(range(validation)))


@pytest.fixture(scope="module", params=[3, 8, 10])  # 8 steps make an epoch
def stopped(request, sample_csv, tmp_path_factory):
    return run(sample_csv, tmp_path_factory.mktemp("stopped"), stop_after=request.param)[0]


@pytest.mark.parametrize("budget", [256, 100, 4096])
def test_a_stopped_fit_resumes_exactly_with_any_budget(unbroken, stopped, sample_csv, tmp_path, budget):
    """The budget cuts steps into other numbers of micro-batches, as other numbers of ranks do."""
    resumed, _ = run(sample_csv, tmp_path, resume=stopped.path, budget=budget)
    assert len(stopped.steps) == stopped.stop_after
    assert stopped.steps + resumed.steps == unbroken[0].steps
