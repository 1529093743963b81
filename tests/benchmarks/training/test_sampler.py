"""Which queries a step takes."""

from collections import Counter
from dataclasses import replace

import pytest

from lisabench.benchmarks.training.sampler import SamplingPlan

pytestmark = pytest.mark.no_clock

PLAN = SamplingPlan(
    samples=11,
    batch_size=2,
    accumulation=2,
    world=1,
    rank=0,
    epochs=3,
    distill_steps=0,
    max_steps=None,
    seed=0,
)


def taken(plan: SamplingPlan, epoch: int) -> list[int]:
    return [
        query
        for step in range(plan.steps)
        if plan.epoch(step) == epoch
        for query in plan.queries(step)
    ]


def test_an_epoch_takes_every_query_once():
    assert [Counter(taken(PLAN, epoch)) for epoch in (1, 2, 3)] == [Counter(range(11))] * 3
    assert PLAN.steps == 3 * 3


def test_epochs_and_seeds_differ_in_their_order():
    orders = [taken(PLAN, 1), taken(PLAN, 2), taken(replace(PLAN, seed=1), 1)]
    assert len({tuple(order) for order in orders}) == 3
    assert taken(PLAN, 1) == taken(replace(PLAN), 1)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_queries_of_a_step(world):
    alone = replace(PLAN, batch_size=4, accumulation=1)
    many = [
        replace(PLAN, batch_size=4 // world, accumulation=1, world=world, rank=rank)
        for rank in range(world)
    ]
    for step in range(alone.steps):
        shared = [
            query
            for one in many
            if one.counts(step)
            for batch in one.share(step)
            for query in batch
        ]
        assert sorted(shared) == sorted(alone.queries(step))
        assert all(one.share(step) for one in many)


def test_accumulation_takes_the_same_queries_in_smaller_batches():
    plan = replace(PLAN, samples=8)
    assert [len(batch) for batch in plan.share(0)] == [2, 2]
    assert [query for batch in plan.share(0) for query in batch] == replace(
        plan, batch_size=4, accumulation=1
    ).queries(0)


def test_a_training_stops_after_so_many_steps_and_its_last_one_ends_an_epoch():
    plan = replace(PLAN, max_steps=4)
    assert plan.steps == 4
    assert [plan.ends_epoch(step) for step in range(4)] == [False, False, True, True]


def test_distillation_comes_first_as_epoch_0_and_takes_all_queries_in_turn():
    plan = replace(PLAN, distill_steps=6, epochs=1)
    assert plan.steps == 6 + 3
    assert [plan.epoch(step) for step in range(9)] == [0] * 6 + [1] * 3
    assert [plan.ends_epoch(step) for step in (4, 5, 8)] == [False, True, True]
    assert Counter(taken(plan, 0)) == Counter(dict.fromkeys(range(11), 2))
    assert plan.queries(0) != plan.queries(3)
