"""The plan of the steps: which films, on which rank, in which micro-batch; against brute force on small inputs."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_lightning.data import steps
from genre_lightning.data.steps import (
    EvaluationSampler,
    StepSampler,
    epoch_order,
    evaluation_shards,
    films_of_step,
    micro_batches_per_step,
    partition,
    parts_needed,
    shares_of_step,
    steps_per_epoch,
)

EXACT = settings(deadline=None, derandomize=True, max_examples=120)
# some texts are longer than most budgets below
LENGTHS = st.lists(st.integers(1, 40) | st.integers(1, 400), min_size=1, max_size=70).map(np.array)
SMALL = st.lists(st.integers(1, 30), min_size=1, max_size=7).map(np.array)
PLANS = st.fixed_dictionaries(
    {
        "global_batch_size": st.integers(1, 24),
        "budget": st.integers(1, 300),
        "world_size": st.integers(1, 5),
        "seed": st.integers(0, 2**40),
    }
)


def processed(lengths):
    """Tokens of a micro-batch, padding included."""
    return len(lengths) * int(max(lengths)) if len(lengths) else 0


def samplers(lengths, plan, epochs=2):
    micro_batches = micro_batches_per_step(lengths, **plan, epochs=epochs)
    return [
        StepSampler(
            lengths,
            global_batch_size=plan["global_batch_size"],
            micro_batches=micro_batches,
            seed=plan["seed"],
            rank=rank,
            world_size=plan["world_size"],
        )
        for rank in range(plan["world_size"])
    ]


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def steps_of(ranks, micro_batches):
    """[step] → all the step's micro-batches of all ranks."""
    steps = len(ranks[0]) // micro_batches
    return [
        [batch for rank in ranks for batch in rank[step * micro_batches : (step + 1) * micro_batches]]
        for step in range(steps)
    ]


@EXACT
@given(LENGTHS, PLANS)
def test_an_epoch_shows_every_film_once_over_all_ranks(lengths, plan):
    for epoch in (0, 1):
        ranks = [epoch_of(sampler, epoch) for sampler in samplers(lengths, plan)]
        shown = [film for rank in ranks for batch in rank for film in batch.films.tolist()]
        assert sorted(shown) == list(range(len(lengths)))


@EXACT
@given(LENGTHS, PLANS)
def test_the_number_of_micro_batches_is_fixed(lengths, plan):
    own = samplers(lengths, plan)
    for sampler in own:
        assert (
            len(epoch_of(sampler, 0))
            == len(epoch_of(sampler, 1))
            == len(sampler)
            == sampler.steps * own[0].micro_batches
        )
    assert own[0].steps == steps_per_epoch(len(lengths), plan["global_batch_size"])


@EXACT
@given(LENGTHS, PLANS, st.integers(1, 300), st.integers(1, 5), st.integers(0, 3))
def test_the_films_of_a_step_know_nothing_of_ranks_and_budgets(lengths, plan, budget, world_size, epoch):
    films = []
    for other in (plan, {**plan, "budget": budget, "world_size": world_size}):
        own = samplers(lengths, other)
        ranks = [epoch_of(sampler, epoch) for sampler in own]
        steps = steps_of(ranks, own[0].micro_batches)
        films.append([sorted(film for batch in step for film in batch.films.tolist()) for step in steps])
        assert [{batch.step_films for batch in step} for step in steps] == [{len(step)} for step in films[-1]]
    assert films[0] == films[1]
    order = epoch_order(len(lengths), plan["seed"], epoch)
    size = plan["global_batch_size"]
    assert films[0] == [sorted(films_of_step(order, size, step).tolist()) for step in range(len(films[0]))]
    assert all(len(step) == size for step in films[0][:-1])


@EXACT
@given(LENGTHS, PLANS)
def test_no_micro_batch_over_the_budget_but_one_long_film_alone(lengths, plan):
    for sampler in samplers(lengths, plan):
        for epoch in (0, 1):
            for batch in epoch_of(sampler, epoch):
                assert len(batch.films) <= 1 or processed(lengths[batch.films]) <= plan["budget"]


def test_films_next_to_one_that_is_over_the_budget_stay_within_it():
    # the long film makes 500 the largest group whatever is done: the others must not be filled up to that
    lengths = np.array([500, 50, 50, 50, 50, 50])
    sampler = samplers(lengths, {"global_batch_size": 6, "budget": 100, "world_size": 1, "seed": 0})[0]
    assert sampler.micro_batches == 4
    assert sorted(processed(lengths[batch.films]) for batch in sampler) == [50, 100, 100, 500]


@EXACT
@given(LENGTHS, PLANS)
def test_no_fewer_micro_batches_would_do(lengths, plan):
    """One fewer on each rank leaves some step of the run without room."""
    micro_batches = micro_batches_per_step(lengths, **plan, epochs=2)
    if micro_batches == 1:
        return
    parts = []
    for epoch in (0, 1):
        order = epoch_order(len(lengths), plan["seed"], epoch)
        for step in range(steps_per_epoch(len(lengths), plan["global_batch_size"])):
            parts.append(parts_needed(lengths[films_of_step(order, plan["global_batch_size"], step)], plan["budget"]))
    assert (micro_batches - 1) * plan["world_size"] < max(parts) <= micro_batches * plan["world_size"]


def partitions(items, parts):
    """Every way to put items into at most n groups."""
    if not items:
        yield []
        return
    head, *rest = items
    for groups in partitions(rest, parts):
        for place in range(len(groups)):
            yield [*groups[:place], [head, *groups[place]], *groups[place + 1 :]]
        if len(groups) < parts:
            yield [[head], *groups]


@EXACT
@given(SMALL, st.integers(1, 5))
def test_partition_is_optimal(lengths, parts):
    groups = partition(lengths, parts)
    assert len(groups) == parts
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    best = min(max(map(processed, groups)) for groups in partitions(lengths.tolist(), parts))
    assert max(processed(lengths[group]) for group in groups) == best


@EXACT
@given(SMALL, st.integers(1, 60))
def test_parts_needed_is_the_fewest(lengths, budget):
    def fits(groups):
        return all(len(group) == 1 or processed(group) <= budget for group in groups)

    fewest = next(
        parts for parts in itertools.count(1) if any(fits(groups) for groups in partitions(lengths.tolist(), parts))
    )
    assert parts_needed(lengths, budget) == fewest
    assert parts_needed(lengths[:0], budget) == 0


def neighbours(lengths, parts):
    """Every way to cut texts, the longest first, into at most n groups of neighbours."""
    descending = sorted(lengths.tolist(), reverse=True)
    for count in range(min(parts, len(descending))):
        for cuts in itertools.combinations(range(1, len(descending)), count):
            yield [descending[a:b] for a, b in itertools.pairwise([0, *cuts, len(descending)])]


@EXACT
@given(SMALL, st.integers(1, 5), st.integers(1, 60))
def test_packed_texts_cost_their_own_tokens(lengths, parts, budget):
    groups = partition(lengths, parts, "packed")
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    best = min(max(map(sum, groups)) for groups in neighbours(lengths, parts))
    assert max(lengths[group].sum() for group in groups) == best

    def fits(groups):
        return all(len(group) == 1 or sum(group) <= budget for group in groups)

    fewest = next(parts for parts in itertools.count(1) if any(map(fits, neighbours(lengths, parts))))
    assert parts_needed(lengths, budget, "packed") == fewest


@EXACT
@given(LENGTHS, PLANS)
def test_packed_micro_batches_stay_within_the_budget(lengths, plan):
    micro_batches = micro_batches_per_step(lengths, **plan, epochs=1, layout="packed")
    others = {name: value for name, value in plan.items() if name != "budget"} | {"layout": "packed"}
    seen = []
    for rank in range(plan["world_size"]):
        for batch in StepSampler(lengths, **others, micro_batches=micro_batches, rank=rank):
            seen += batch.films.tolist()
            assert len(batch.films) <= 1 or lengths[batch.films].sum() <= plan["budget"]
    assert sorted(seen) == list(range(len(lengths)))


@EXACT
@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_ranks_are_balanced(lengths, world_size, micro_batches):
    """Two ranks differ by at most the bound below, which follows from how `partition` fills its groups.

    Texts that go alone because they are the largest group themselves come first. Of the groups after them, cut under
    the bound B, each but the last took all that it could: its cost lies in (B - its longest, B]. So in a micro-batch
    of such groups two ranks differ by less than the longest text there; in the one where the texts run out by at most
    B; and where texts go alone, by the difference of the longest and the shortest fraction of that micro-batch.
    """
    films = np.arange(len(lengths))
    shares = shares_of_step(films, lengths, world_size=world_size, micro_batches=micro_batches)
    groups = [lengths[group] for group in partition(lengths, world_size * micro_batches)]
    costs = [processed(group) for group in groups]
    filled = [cost for group, cost in zip(groups, costs, strict=True) if len(group)]
    many = [place for place, group in enumerate(groups) if len(group) > 1]
    packed = costs[many[0] :] if many else []
    bound = 0
    for micro_batch in range(micro_batches):
        own = costs[micro_batch * world_size : (micro_batch + 1) * world_size]
        longest = max(
            (max(group) for group in groups[micro_batch * world_size :][:world_size] if len(group)), default=0
        )
        runs_out = micro_batch * world_size < len(filled) <= (micro_batch + 1) * world_size
        alone = bool(many) and micro_batch * world_size < many[0]
        if runs_out or alone or not many:
            bound += max(own)
        elif own[0]:
            bound += longest
    totals = [sum(processed(lengths[batch]) for batch in rank) for rank in shares]
    assert max(totals) - min(totals) <= bound
    # the groups that share the texts out differ among themselves by less than a text, the last one aside
    if packed:
        last = len(filled) - many[0] - 1
        for place, cost in enumerate(packed[:last]):
            assert cost > max(packed) - max(groups[many[0] + place])


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (4, 1), (2, 4), (8, 2)])
def test_ranks_are_balanced_on_texts_as_long_as_overviews(world_size, micro_batches):
    rng = np.random.default_rng(0)
    idle = []
    for _ in range(50):
        lengths = rng.gamma(3.0, 24.0, 32 * world_size).clip(8, 256).astype(int)
        shares = shares_of_step(np.arange(len(lengths)), lengths, world_size=world_size, micro_batches=micro_batches)
        totals = [sum(processed(lengths[batch]) for batch in rank) for rank in shares]
        idle.append(1 - np.mean(totals) / max(totals))
    assert np.mean(idle) < 0.08


@EXACT
@given(LENGTHS, PLANS, st.data())
def test_a_resumed_run_sees_exactly_the_rest(lengths, plan, data):
    whole = [epoch_of(sampler, epoch) for epoch in (0, 1) for sampler in samplers(lengths, plan)][
        : 2 * plan["world_size"]
    ]
    own = samplers(lengths, plan)
    done = data.draw(st.integers(0, 2 * own[0].steps - 1))
    epoch, step = divmod(done, own[0].steps)
    for rank, sampler in enumerate(own):
        sampler.load_state_dict({"epoch": 0, "step": done})
        assert sampler.state_dict() == {"epoch": epoch, "step": step}
        sampler.set_epoch(epoch)  # as Lightning does; it must not lose the step
        rest = list(sampler)
        expected = whole[epoch * plan["world_size"] + rank][step * own[0].micro_batches :]
        assert len(rest) == len(expected)
        for a, b in zip(rest, expected, strict=True):
            assert a.films.tolist() == b.films.tolist()
            assert a.step_films == b.step_films
        # the next epoch is whole again
        assert len(epoch_of(sampler, epoch + 1)) == len(sampler)


def test_a_run_resumes_with_other_ranks_and_budgets():
    lengths = np.random.default_rng(0).integers(4, 200, 50)
    before = {"global_batch_size": 8, "budget": 300, "world_size": 1, "seed": 3}
    after = {**before, "budget": 700, "world_size": 3}
    first = samplers(lengths, before)[0]
    seen = [film for batch in list(first)[: 4 * first.micro_batches] for film in batch.films.tolist()]
    for sampler in samplers(lengths, after):
        sampler.load_state_dict({"epoch": 0, "step": 4})
        seen += [film for batch in sampler for film in batch.films.tolist()]
    assert sorted(seen) == list(range(50))


def test_the_state_is_the_same_on_every_rank():
    lengths = np.arange(1, 30)
    own = samplers(lengths, {"global_batch_size": 4, "budget": 60, "world_size": 3, "seed": 0})
    for sampler in own:
        sampler.set_epoch(2)
    assert [sampler.state_dict() for sampler in own] == 3 * [{"epoch": 2, "step": 0}]


def test_set_epoch():
    sampler = samplers(np.arange(1, 30), {"global_batch_size": 4, "budget": 600, "world_size": 1, "seed": 0})[0]
    first, again, second = (epoch_of(sampler, epoch) for epoch in (0, 0, 1))
    shown = [[batch.films.tolist() for batch in epoch] for epoch in (first, again, second)]
    assert shown[0] == shown[1] != shown[2]
    sampler.load_state_dict({"epoch": 1, "step": 3})
    sampler.set_epoch(1)
    assert sampler.state_dict() == {"epoch": 1, "step": 3}
    sampler.set_epoch(2)
    assert sampler.state_dict() == {"epoch": 2, "step": 0}
    sampler.load_state_dict({"epoch": 1, "step": sampler.steps})  # an epoch's end is the next one's start
    assert sampler.state_dict() == {"epoch": 2, "step": 0}


@EXACT
@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(0, 5))
def test_the_order_is_a_permutation_drawn_from_seed_and_epoch(films, seed, epoch):
    order = epoch_order(films, seed, epoch)
    assert sorted(order.tolist()) == list(range(films))
    assert np.array_equal(order, epoch_order(films, seed, epoch))
    if films > 20:
        assert not np.array_equal(order, epoch_order(films, seed, epoch + 1))
        assert not np.array_equal(order, epoch_order(films, seed + 1, epoch))


@EXACT
@given(
    st.lists(st.integers(1, 300), max_size=60).map(lambda lengths: np.array(lengths, dtype=np.int32)),
    st.integers(1, 400),
    st.integers(1, 5),
)
def test_evaluation_holds_each_film_once(lengths, budget, world_size):
    shards = [evaluation_shards(lengths, budget=budget, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(film for shard in shards for batch in shard for film in batch.tolist()) == list(range(len(lengths)))
    batches = [batch for shard in shards for batch in shard]
    assert sum(len(batch) == 0 for batch in batches) < world_size
    for batch in batches:
        assert len(batch) <= 1 or processed(lengths[batch]) <= budget
    sampler = EvaluationSampler(lengths, budget=budget, rank=0, world_size=world_size)
    assert [batch.films.tolist() for batch in sampler] == [batch.tolist() for batch in shards[0]]
    assert len(sampler) == len(shards[0])
    assert all(batch.step_films == len(lengths) for batch in sampler)


def test_texts_without_a_token_are_dealt_too():
    lengths = np.array([3, 0, 2, 0])
    groups = partition(lengths, 2)
    assert sorted(np.concatenate(groups).tolist()) == [0, 1, 2, 3]
    batches = evaluation_shards(lengths, budget=3, rank=0, world_size=1)
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2, 3]


def by_one_text_at_a_time(lengths, parts, layout):
    """`partition`, slowly: the smallest bound is found by trying all of them, and each text is looked at."""
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])

    def cut(texts, bound):
        groups = []
        for text in texts:
            slots = len(groups[-1]) + 1 if groups else 1
            if layout == "padded":
                cost = slots * lengths[groups[-1][0]] if groups else 0
            else:
                cost = sum(lengths[other] for other in groups[-1]) + lengths[text] if groups else 0
            if groups and cost <= bound:
                groups[-1].append(text)
            else:
                groups.append([text])
        return groups

    groups = []
    while order:
        bound = next(
            bound for bound in itertools.count(lengths[order[0]]) if len(cut(order, bound)) <= parts - len(groups)
        )
        if bound > lengths[order[0]] or len(groups) == parts - 1:
            return groups + cut(order, bound)
        groups.append([order.pop(0)])
    return groups


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_groups_are_those_of_a_slow_search(layout):
    numbers = np.random.default_rng(4)
    for _ in range(60):
        lengths = numbers.integers(1, int(numbers.choice([4, 30, 200])), size=int(numbers.integers(1, 40)))
        parts = int(numbers.integers(1, 9))
        groups = [group.tolist() for group in partition(lengths, parts, layout)]
        assert [group for group in groups if group] == by_one_text_at_a_time(lengths.tolist(), parts, layout)


def test_large_steps_are_planned_while_the_one_before_trains(monkeypatch):
    lengths = np.random.default_rng(1).integers(2, 60, size=100)
    options = {"global_batch_size": 24, "micro_batches": 2, "seed": 5, "rank": 1, "world_size": 3, "layout": "packed"}
    expected = list(StepSampler(lengths, **options))
    monkeypatch.setattr(steps, "_PLANNED_AHEAD", 24)
    plan, planned = StepSampler._plan, []
    monkeypatch.setattr(
        StepSampler,
        "_plan",
        lambda self, order, step: planned.append(threading.current_thread()) or plan(self, order, step),
    )
    found = iter(StepSampler(lengths, **options))
    micro_batches = [next(found), next(found)]
    assert threading.main_thread() not in planned
    micro_batches += found
    for one, other in zip(micro_batches, expected, strict=True):
        assert one.step_films == other.step_films
        assert one.films.tolist() == other.films.tolist()
    assert len(planned) == 5
    assert not any(thread.is_alive() for thread in planned)
