"""Plots are drawn for all data, also odd ones; what they count is tested as numbers."""

from itertools import pairwise

import numpy as np
import pytest
from made_predictions import default_decision, make_predictions
from matplotlib.text import Text
from PIL import Image

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.curves import loss_by_epoch
from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.plots.errors import confusion_figure, shown_genres, taken_for, taken_for_figure
from genre_lightning.evaluation.plots.figures import precision_recall_figure, write_figures
from genre_lightning.evaluation.plots.titles import FIGURES
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.scored import ScoredSplit

CURVES = """epoch,step,train/loss,val/loss
0,9,0.8,
0,19,0.6,
0,19,,0.7
1,29,0.5,
1,39,nan,0.65
"""


def test_loss_by_epoch_averages_training_and_takes_validation(tmp_path):
    (tmp_path / "curves.csv").write_text(CURVES)
    first, second = loss_by_epoch(tmp_path / "curves.csv")
    assert first == {"epoch": 1, "train": pytest.approx(0.7), "validation": 0.7}
    assert second == {"epoch": 2, "train": 0.5, "validation": 0.65}
    (tmp_path / "curves.csv").write_text("step,accuracy\n1,2\n")
    assert loss_by_epoch(tmp_path / "curves.csv") == []
    with pytest.raises(CheckpointError, match="is missing"):
        loss_by_epoch(tmp_path / "none.csv")


def test_every_figure_is_written_and_not_blank(predictions, tmp_path):
    (tmp_path / "curves.csv").write_text(CURVES)
    decision = fit_decision(predictions, "validation")
    written = write_figures(
        tmp_path / "figures", ScoredSplit(predictions, decision), curves_csv=tmp_path / "curves.csv"
    )
    assert [path.stem for path in written] == list(FIGURES)
    for path in written:
        with Image.open(path) as image:
            assert image.width > 600
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20
    write_figures(tmp_path / "figures", ScoredSplit(predictions, decision))
    assert not (tmp_path / "figures" / "loss.png").exists()


def test_one_film_one_genre_and_odd_names_are_drawn(tmp_path):
    one = make_predictions(0, films=1, genres=("$_{<b>",))
    odd = Predictions(one.genres, one.ids, one.titles, one.texts, one.labels & False, one.logits)
    assert len(write_figures(tmp_path, ScoredSplit(odd, default_decision(odd.genres)))) == len(FIGURES) - 1


@pytest.mark.parametrize(
    "genres", [("Drama",), ("Romantic comedies & musical films", "H" * 30, "War, and its aftermath 1914-1945")]
)
def test_names_stay_in_their_panels_and_all_text_in_the_figure(genres):
    rng = np.random.default_rng(0)
    labels, decided = rng.random((2, 40, len(genres))) < 0.4
    panels = [confusion_figure(labels, decided, genres), precision_recall_figure(labels, labels * 0.5, decided, genres)]
    for figure in (*panels, taken_for_figure(labels, decided, genres)):
        figure.draw_without_rendering()
        axes = [one for one in figure.axes if one.axison]
        whole = figure.bbox
        for text in figure.findobj(Text):
            box = text.get_window_extent()
            if text.get_text() and text.get_visible():
                assert whole.y0 - 1 <= box.y0 <= box.y1 <= whole.y1 + 1, text.get_text()
        if figure in panels:
            for left, right in pairwise([one._left_title.get_window_extent() for one in axes]):
                assert left.x1 <= right.x0 + 1


def test_taken_for_is_the_fraction_of_the_films_missing_the_row_s_genre():
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)
    decided = np.array([[0, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=bool)
    shares = taken_for(labels, decided)
    assert shares[0].tolist() == [0, 0.5, 0]
    assert np.isnan(shares[1:]).all()


def test_of_many_genres_the_most_frequent_and_the_worst_are_shown():
    generator = np.random.default_rng(0)
    labels = generator.random((400, 60)) < np.linspace(0.5, 0.02, 60)
    labels[:, 59] = False
    decided = labels.copy()
    decided[:, [40, 50]] = ~labels[:, [40, 50]]
    columns, note = shown_genres(labels, decided)
    frequent = set(np.argsort(-labels.sum(axis=0), kind="stable")[:12].tolist())
    assert len(columns) == 24
    assert columns == sorted(columns)
    assert frequent | {40, 50} <= set(columns)
    assert 59 not in columns  # no film: nothing to be bad at
    assert note == ", 12 most frequent and 12 worst of 60"
    assert shown_genres(labels[:, :24], decided[:, :24]) == (list(range(24)), "")


@pytest.mark.slow
def test_a_thousand_genres_are_drawn_as_a_few(tmp_path):
    many = make_predictions(0, films=50, genres=tuple(f"genre {i}" for i in range(1000)))
    written = write_figures(tmp_path, ScoredSplit(many, default_decision(many.genres)))
    assert [path.stem for path in written] == [name for name in FIGURES if name != "loss"]
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.height < 3000
