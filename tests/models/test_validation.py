"""The torchmetrics collection of validation against the numpy metrics, padded, in batches, and over two ranks."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from genre_lightning import metrics
from genre_lightning.models.validation import VALIDATION_METRICS, EvaluationMetrics, GenreMetrics, tuned_micro_f1

GENRES = 5


def films(seed=0, n=120):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, GENRES, generator=generator) * 2 - 0.5
    labels = (torch.rand(n, GENRES, generator=generator) < logits.sigmoid()).long()
    return logits, labels


def reference(logits, labels):
    """The same metrics by the numpy functions, which are tested against scikit-learn."""
    truth, probabilities = labels.bool().numpy(), logits.sigmoid().numpy()
    decided = probabilities >= 0.5
    candidates = [metrics.policy_metrics(truth, probabilities >= t)["f1_micro"] for t in np.unique(probabilities)]
    figures = {**metrics.policy_metrics(truth, decided), **metrics.threshold_free_metrics(truth, probabilities)}
    return {**{name: figures[name] for name in VALIDATION_METRICS[:-1]}, "f1_micro_tuned": max(candidates)}


def test_labels_that_are_not_known_are_left_out():
    logits, labels = films()
    known = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) < 0.7
    known[:60, 4] = False
    known[::9] = False
    truth, probabilities, mask = (labels.bool() & known).numpy(), logits.sigmoid().numpy(), known.numpy()
    collection = EvaluationMetrics(GENRES, masked=True)
    for start in range(0, 120, 50):
        part = slice(start, start + 50)
        batch = {"labels": labels[part].float(), "known": known[part].float(), "weights": torch.ones(len(labels[part]))}
        # each film that has a known label has a loss of 1
        collection.update(logits[part], known[part].any(dim=1).sum().float(), batch)
    found = as_floats(collection.compute(lambda values: values))
    decided = metrics.judged(probabilities >= 0.5, mask)
    expected = {
        **metrics.policy_metrics(truth, decided, mask),
        **metrics.threshold_free_metrics(truth, probabilities, known=mask),
        "f1_micro_tuned": float(tuned_micro_f1(logits.sigmoid()[known], labels[known])),
    }
    for name in VALIDATION_METRICS:
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name
    assert found["loss"] == 1
    np.testing.assert_allclose(
        collection.per_genre()["ap"], metrics.average_precision(truth, probabilities, mask), rtol=1e-5
    )


def as_floats(values):
    return {name: float(value) for name, value in values.items()}


def test_batches_with_padding_equal_the_numpy_metrics():
    logits, labels = films()
    collection = GenreMetrics(GENRES)
    for start in range(0, 120, 50):
        rows = slice(start, start + 50)
        padding = torch.full((3, GENRES), 9.0)
        batch = torch.cat([padding, logits[rows]])
        truth = torch.cat([torch.ones(3, GENRES, dtype=torch.long), labels[rows]])
        weights = torch.cat([torch.zeros(3), torch.ones(len(batch) - 3)])
        collection.update(batch, truth.float(), weights)
    values = collection.compute()
    assert tuple(values) == VALIDATION_METRICS
    assert as_floats(values) == pytest.approx(reference(logits, labels), abs=1e-5)


def test_undefined_genres_are_left_out_without_a_warning():
    logits, labels = films(1)
    labels[:, 2], labels[:, 4] = 0, 1
    collection = GenreMetrics(GENRES)
    collection.update(logits, labels, torch.ones(len(logits)))
    assert as_floats(collection.compute()) == pytest.approx(reference(logits, labels), abs=1e-5)


def test_each_genre_is_scikit_learns():
    from sklearn.metrics import average_precision_score, f1_score

    logits, labels = films(2)
    labels[:, 3] = 0
    collection = GenreMetrics(GENRES)
    collection.update(logits, labels, torch.ones(len(logits)))
    collection.compute()
    values = collection.per_genre()
    for genre in range(GENRES):
        truth, probabilities = labels[:, genre].numpy(), logits[:, genre].sigmoid().numpy()
        f1, ap = (float(values[name][genre]) for name in ("f1", "ap"))
        if genre == 3:
            assert math.isnan(f1)
            assert math.isnan(ap)
            continue
        assert f1 == pytest.approx(f1_score(truth, probabilities >= 0.5), abs=1e-6)
        assert ap == pytest.approx(average_precision_score(truth, probabilities), abs=1e-6)


def test_reset_forgets_and_no_films_are_nan():
    logits, labels = films(2)
    collection = GenreMetrics(GENRES)
    assert all(math.isnan(value) for value in as_floats(collection.compute()).values())
    assert all(value.isnan().all() for value in collection.per_genre().values())
    collection.reset()
    collection.update(logits, labels, torch.zeros(len(logits)))
    assert all(math.isnan(value) for value in as_floats(collection.compute()).values())
    collection.reset()
    collection.update(logits[:60], labels[:60], torch.ones(60))
    first = as_floats(collection.compute())
    collection.reset()
    collection.update(logits, labels, torch.ones(len(logits)))
    second = as_floats(collection.compute())
    assert first == pytest.approx(reference(logits[:60], labels[:60]), abs=1e-5)
    assert second == pytest.approx(reference(logits, labels), abs=1e-5)
    assert first != second


def test_bfloat16_logits_are_taken():
    logits, labels = films(3)
    collection = GenreMetrics(GENRES)
    collection.update(logits.bfloat16(), labels, torch.ones(len(logits)))
    expected = reference(logits.bfloat16().float(), labels)
    assert as_floats(collection.compute()) == pytest.approx(expected, abs=1e-5)


def test_tuned_micro_f1_groups_equal_scores():
    scores, labels = torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([0, 1, 0, 0])
    # deciding one of the two 0.5s would give 2/3; a threshold takes both or none
    assert float(tuned_micro_f1(scores, labels)) == pytest.approx(0.5)
    assert math.isnan(float(tuned_micro_f1(scores, labels * 0)))


def _rank(rank, address, results):
    """Rank 1 has no batch in the first epoch, and padding only in the second; it has films in the third."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    logits, labels = films(4)
    collection = GenreMetrics(GENRES)
    collected = []
    for epoch in range(3):
        rows = (slice(0, 80) if rank == 0 else slice(80, 120)) if epoch == 2 else slice(0, 120)
        if rank == 0 or epoch > 0:
            weights = torch.zeros(len(logits[rows])) if rank == 1 and epoch == 1 else torch.ones(len(logits[rows]))
            collection.update(logits[rows], labels[rows], weights)
        collected.append(as_floats(collection.compute()))
        collection.reset()
    results[rank] = collected
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one_even_when_one_has_no_films(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(tmp_path / "rendezvous", results), nprocs=2)
        expected = reference(*films(4))
        for rank in range(2):
            for figures in results[rank]:
                assert figures == pytest.approx(expected, abs=1e-5)
