"""Check a suite before anything is loaded or measured: its names are known, and its parts agree."""

import math

from ..harness import metrics
from ..harness.errors import UsageError, unknown
from ..harness.memory import card_bytes
from ..harness.protocols import protocol_named
from .claim_checks import check_claim
from .factors import check_factors
from .resolved_suite import ResolvedCase, ResolvedSuite
from .suite import AUTO, Suite
from .training import in_suites

MOST_CARDS = 5  # beside the name and the regime, a table of seven columns


def check_definition(suite: Suite) -> None:
    """Check what needs no case to be made.

    Raises:
        UsageError: naming the first thing that is wrong.
    """
    both = suite.cases.keys() & suite.controls.keys()
    if both:
        names = ", ".join(sorted(both))
        raise UsageError(f"suite {suite.name}: {names} is both a case and a control; rename one")
    if suite.reference not in suite.cases:
        raise unknown("case as reference", suite.reference, suite.cases)
    _check_groups(suite)
    _check_memory_pass(suite)
    _check_decoding(suite)
    for metric in suite.metrics:
        if metric not in metrics.METRICS:
            raise unknown("metric", metric, metrics.METRICS)
    protocol_named(suite.data.protocol)  # raises where there is none of that name
    if suite.plan.gpu_memory:
        card_bytes(suite.plan.gpu_memory)  # raises where it is no size of a card
    _check_cards(suite)


def check_resolved(suite: ResolvedSuite) -> None:
    """Check what is said about the cases: batches, factors, gate, trainings and claims.

    Raises:
        UsageError: naming the first thing that is wrong.
    """
    for case in suite.models:
        _check_batch(suite, case)
    check_factors(suite)
    suite.definition.gate.check(suite.definition.cases)
    _check_gated_throughput(suite)
    in_suites.check(suite.trainings)
    for claim in suite.claims:
        check_claim(claim, suite.references_for(claim))
        in_suites.check_card(claim, suite.trainings)


def _check_cards(suite: Suite) -> None:
    """Check that each card has a size, and that all are different and not too many for a table."""
    card_of_size: dict[int, str] = {}
    for card in suite.cards:
        size = card_bytes(card)  # raises where it is no size of a card
        if size in card_of_size:
            raise UsageError(
                f"suite {suite.name}: the cards {card_of_size[size]} and {card} have the same "
                "size; leave one out"
            )
        card_of_size[size] = card
    if len(suite.cards) > MOST_CARDS:
        raise UsageError(
            f"suite {suite.name}: {len(suite.cards)} cards are too many for one table; name at "
            f"most {MOST_CARDS}"
        )


def _check_groups(suite: Suite) -> None:
    if not suite.groups:
        return
    grouped = [case for cases in suite.groups.values() for case in cases]
    for case in grouped:
        if case not in suite.cases:
            raise unknown("case in a group", case, suite.cases)
    misplaced = [case for case in suite.cases if grouped.count(case) != 1]
    if misplaced or not all(suite.groups.values()):
        where = ", ".join(misplaced) or "an empty group"
        raise UsageError(
            f"suite {suite.name}: each case belongs to exactly one group, "
            f"which is not so for {where}"
        )


def _check_gated_throughput(suite: ResolvedSuite) -> None:
    """Check that the gate has no limit on queries per second that nothing is held to."""
    if suite.plan.scenario == "throughput":
        return
    gate = suite.definition.gate
    for case in suite.models:
        if gate.of(case.name).throughput is not None:
            raise UsageError(
                f"suite {suite.name}: gate.throughput limits queries per second, which the suite "
                "does not measure; set plan.scenario to throughput, or leave the limit out"
            )


def _check_batch(suite: ResolvedSuite, case: ResolvedCase) -> None:
    """Check that the suite measures throughput if a case has batches, and in blocks of whole ones.

    A smaller batch at the end of each block would have another time for each of its queries.
    """
    batch, block = case.batch, suite.plan.block
    if batch != 1 and suite.plan.scenario == "latency":
        raise UsageError(
            f"suite {suite.name}: {case.name} has batch {batch}, but latency is that of single "
            "queries; set plan.scenario to throughput, or the batch to 1"
        )
    if batch != AUTO and block % batch:
        common_batch = suite.common_batch(suite.plan.timed_queries)
        whole_blocks = math.ceil(block / common_batch) * common_batch
        raise UsageError(
            f"suite {suite.name}: a block of {block} queries is no whole number of batches of "
            f"{batch}, as {case.name} has them; set plan.block to a multiple of every batch, such "
            f"as {whole_blocks}"
        )


def _check_memory_pass(suite: Suite) -> None:
    """Check that there is a memory pass where cases are measured in turn."""
    sizes = [len(cases) for cases in suite.groups.values()] or [len(suite.cases)]
    if suite.plan.memory_processes == 0 and max(sizes) > 1:
        raise UsageError(
            f"suite {suite.name}: memory_processes is 0, but whether the cases of a group fit side "
            "by side is known from the memory pass; make it 1 or more"
        )


def _check_decoding(suite: Suite) -> None:
    """Check that processes that decode images are asked for only where the plan has them."""
    workers = suite.plan.decode_workers
    if workers is not None and suite.plan.scenario == "latency":
        raise UsageError(
            f"suite {suite.name}: decode_workers is {workers}, but for latency each image is "
            "decoded before the clock starts; set plan.scenario to throughput, or leave it out"
        )
