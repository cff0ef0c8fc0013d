"""The planned steps against those that a run's own sampler yields."""

import numpy as np
import pytest

from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.steps import StepSampler
from genre_lightning.planning.setting import BatchShape
from genre_lightning.planning.steps import plan_steps, read_texts

LENGTHS = np.random.default_rng(0).integers(5, 90, size=333).astype(np.int32)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize(("ranks", "budget"), [(1, 4000), (1, 500), (3, 300)])
def test_the_plan_is_what_the_samplers_yield(packed, ranks, budget):
    plan = plan_steps(
        LENGTHS, global_batch_size=32, budget=budget, ranks=ranks, seed=4, max_epochs=2, max_steps=-1,
        packed=packed, encoder=True,
    )  # fmt: skip
    assert (plan.steps, plan.epochs, plan.total_steps) == (11, 2, 22)
    slots, shapes = [0, 0], []
    for rank in range(ranks):
        sampler = StepSampler(
            LENGTHS,
            global_batch_size=32,
            micro_batches=plan.micro_batches,
            seed=4,
            rank=rank,
            world_size=ranks,
            layout="packed" if packed else "padded",
        )
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            for lengths in (LENGTHS[batch.films] for batch in sampler if len(batch.films)):
                padded = int(lengths.max()) * len(lengths)
                taken = int(lengths.sum()) if packed else padded
                slots[epoch] += taken
                shapes.append((taken, padded, int(lengths.max())))
    assert plan.slots == slots[0]
    assert plan.largest[0].tokens == max(taken for taken, _, _ in shapes) <= max(budget, 90)
    assert max(shape.longest for shape in plan.largest) == max(longest for _, _, longest in shapes)
    for taken, padded, longest in shapes:  # each is within one of the largest
        assert any(
            taken <= one.tokens and padded <= one.attention_tokens and longest <= one.longest for one in plan.largest
        )
    assert plan.tokens == LENGTHS.sum()
    assert plan.tokens_squared == (LENGTHS.astype(float) ** 2).sum()
    assert plan.padding == pytest.approx(1 - LENGTHS.sum() / slots[0])


def test_a_limit_of_steps_ends_the_plan():
    options = {"global_batch_size": 32, "budget": 500, "ranks": 1, "seed": 4, "packed": False, "encoder": False}
    whole = plan_steps(LENGTHS, max_epochs=3, max_steps=-1, **options)
    short = plan_steps(LENGTHS, max_epochs=3, max_steps=4, **options)
    assert (whole.total_steps, short.total_steps) == (33, 4)
    assert plan_steps(LENGTHS, max_epochs=-1, max_steps=30, **options).total_steps == 30
    assert short.slots == whole.slots
    assert short.largest[0].tokens <= whole.largest[0].tokens


def test_lengths_are_estimated_without_a_tokenizer(sample_csv, tmp_path):
    known = read_texts(MovieDataModule(sample_csv, tokenizer="wordpiece", cache_dir=tmp_path), decoder=False)
    assert known.estimated is None
    data = MovieDataModule(sample_csv, tokenizer="someone/encoder", cache_dir=tmp_path, max_tokens=40)
    unknown = read_texts(data, decoder=False)
    assert "someone/encoder" in unknown.estimated
    texts = unknown.films.films.strings("text", unknown.films.rows)
    expected = [min(2 + int(np.ceil(0.216 * len(text))), 40) for text in texts]
    assert unknown.lengths.tolist() == expected
    assert unknown.report(40).at_limit == sum(length == 40 for length in expected) > 0


def test_the_largest_batch_of_a_budget():
    assert BatchShape.full(100, 256, packed=False, encoder=True) == BatchShape(256, 256, 256, masked=True)
    assert BatchShape.full(512, 256, packed=True, encoder=False).tokens == 512
