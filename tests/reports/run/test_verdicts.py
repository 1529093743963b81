"""The words for a run's comparisons: each follows from where an interval lies, and is first."""

import pytest
from run_factory import write_run

from lisabench.harness.records.run import read_run
from lisabench.harness.statistics.estimate import Estimate
from lisabench.reports.run.schema import BothAnswered, Comparison
from lisabench.reports.run.summary import summarise
from lisabench.reports.run.verdicts import change, in_a_sentence, in_words, verdicts
from lisabench.reports.schema_base import NO_RATIO, AgainstTrivialBaseline, Points, Ratio

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    """Return the summary of a run without comparisons, for tests that put theirs in."""
    folder = write_run(tmp_path_factory.mktemp("run"), controls=False, **SMALL)
    return summarise(read_run(folder)).model_copy(update={"comparisons": []})


def ratio(value, low=None, high=None, processes=3):
    return Ratio.from_estimate(Estimate(value, low, high, processes))


def points(value, low=None, high=None, images=16):
    return Points.from_estimate(Estimate(value, low, high, images))


def compared(candidate="clip", time=NO_RATIO, memory=NO_RATIO, masks=None, **others):
    return Comparison(
        reference="dual",
        candidate=candidate,
        end_to_end=time,
        stages={},
        peak_memory=memory,
        gIoU_points=masks,
        cIoU_points=None,
        both_answered=BothAnswered(n=0, gIoU_points=None, cIoU_points=None),
        differences={},
        **others,
    )


def sentence(summary, *comparisons):
    return in_a_sentence(summary.model_copy(update={"comparisons": list(comparisons)}))


def words(summary, comparison):
    return [in_words(verdict) for verdict in verdicts(comparison, summary.cases)]


def test_the_word_comes_first_then_the_amount_the_interval_and_what_would_tell(summary):
    comparison = compared(
        time=ratio(0.79, 0.75, 0.84),
        memory=ratio(0.96, 0.95, 0.96),
        masks=points(-3.8, -18.8, 11.3),
    )
    assert words(summary, comparison) == [
        "faster: 21 % less (0.79x, 0.75 to 0.84)",
        "smaller: 4 % less (0.96x, 0.95 to 0.96)",
        "cannot tell: -3.8 points gIoU (-18.8 to +11.3); 16 images show only differences over 15 "
        "points; 2 points take about 920 images",
    ]
    tones = [verdict.tone for verdict in verdicts(comparison, summary.cases)]
    assert tones == ["good", "good", "open"]


def test_what_costs_more_and_is_worse_has_the_tone_bad(summary):
    comparison = compared(
        time=ratio(3.2, 3.1, 3.3), memory=ratio(1.18, 1.17, 1.19), masks=points(-9.0, -12.0, -6.0)
    )
    assert words(summary, comparison) == [
        "slower: 3.20 times as much (3.20x, 3.10 to 3.30)",
        "larger: 18 % more (1.18x, 1.17 to 1.19)",
        "worse: -9.0 points gIoU (-12.0 to -6.0)",
    ]
    assert {verdict.tone for verdict in verdicts(comparison, summary.cases)} == {"bad"}


def test_a_time_that_cannot_be_told_says_how_many_pairs_of_processes_would_tell(summary):
    time, _, _ = words(summary, compared(time=ratio(1.0, 1 / 1.2, 1.2)))
    assert time == (
        "cannot tell: no difference (1.00x, 0.83 to 1.20); 3 pairs of processes show only "
        "20 % or more; 5 % takes about 12 pairs"
    )


def test_a_difference_close_to_a_limit_is_said_to_be_that(summary):
    time, _, masks = words(
        summary, compared(time=ratio(1.05, 1.04, 1.06), masks=points(-2.5, -3.5, -1.5, 100))
    )
    assert time.endswith("close to the limit of 5 %: only many more pairs of processes would tell")
    assert masks.endswith("close to the limit of 2 points: about 400 images would tell")


def test_one_pair_of_processes_gives_no_verdict_on_time_but_an_allocator_counts(summary):
    alone = ratio(0.35, processes=1)
    on_gpu = words(summary, compared(time=alone, memory=alone))
    assert on_gpu[0] == "cannot tell: 65 % less (0.35x); one pair of processes gives no interval"
    assert on_gpu[1] == "smaller: 65 % less (0.35x)"
    on_cpu = words(summary, compared(memory=alone, memory_definition="growth"))
    assert on_cpu[1] == "cannot tell: 65 % less (0.35x); one pair of processes gives no interval"


def test_what_was_not_compared_has_no_word_and_says_why(summary):
    random = [case.model_copy(update={"has_quality": False}) for case in summary.cases]
    of_nothing = verdicts(compared(), random)
    assert [verdict.word for verdict in of_nothing] == ["", "", ""]
    assert [in_words(verdict) for verdict in of_nothing] == [
        "time was not measured on both sides",
        "memory was not measured alike on both sides",
        "random weights have no quality",
    ]


def test_two_measurements_of_one_model_have_no_word(summary):
    twin = compared(time=ratio(1.2, 1.1, 1.3), same_settings=True)
    time = verdicts(twin, summary.cases)[0]
    assert (time.word, time.note, time.tone) == ("", "two measurements of one model", "same")
    assert sentence(summary, twin) == (
        "All cases have the same settings: there is nothing to compare."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.79, "21 % less"),
        (0.7949, "21 % less"),  # as it is shown: 0.79x
        (0.996, "0.4 % less"),
        (0.9999, "no difference"),
        (1.004, "0.4 % more"),
        (1.18, "18 % more"),
        (1.99, "99 % more"),
        (1.996, "2.00 times as much"),
        (None, "n/a"),
    ],
)
def test_a_ratio_is_written_in_per_cent_and_agrees_with_what_is_shown_of_it(value, text):
    assert change(value) == text


# The headline

FASTER, SLOWER, UNKNOWN = ratio(0.8, 0.75, 0.85), ratio(1.2, 1.1, 1.3), ratio(1.0, 0.8, 1.25)


def test_the_headline_says_what_is_faster_and_whether_the_masks_are_as_good(summary):
    open_masks = points(-3.8, -19.0, 11.3)
    clip = compared("clip", time=FASTER, masks=open_masks)
    sam = compared("sam", time=FASTER, masks=open_masks)
    assert sentence(summary, clip, sam) == (
        "clip and sam are faster than dual. Whether their masks are as good, 16 images cannot tell."
    )
    assert sentence(summary, clip) == (
        "clip is faster than dual. Whether its masks are as good, 16 images cannot tell."
    )


def test_the_headline_tells_variants_with_other_words_apart(summary):
    comparisons = [
        compared("clip", time=FASTER, masks=points(-9.0, -12.0, -6.0)),
        compared("sam", time=UNKNOWN, masks=points(0.1, -1.0, 1.0)),
        compared("nf4", time=SLOWER, masks=points(0.1, -8.0, 8.0)),
    ]
    assert sentence(summary, *comparisons) == (
        "clip is faster than dual; nf4 is slower; sam cannot be told apart in time. The masks of "
        "sam are as good; the masks of clip are worse; whether the masks of nf4 are as good, 16 "
        "images cannot tell."
    )


def test_a_difference_that_is_sure_but_maybe_below_the_limit_is_said_to_be_one(summary):
    comparisons = [
        compared("clip", time=ratio(0.95, 0.94, 0.96)),
        compared("nf4", time=ratio(1.06, 1.02, 1.1)),
        compared("sam", time=UNKNOWN),
    ]
    assert sentence(summary, *comparisons).startswith(
        "clip may be less than 5 % faster than dual; nf4 may be less than 5 % slower; sam cannot "
        "be told apart in time."
    )


def test_without_masks_the_headline_speaks_of_memory(summary):
    random = [case.model_copy(update={"has_quality": False}) for case in summary.cases]
    of_random = summary.model_copy(update={"cases": random})
    clip = compared("clip", time=FASTER, memory=ratio(0.5))
    assert sentence(of_random, clip) == (
        "clip is faster than dual. clip takes less memory than dual. Masks are not compared: the "
        "weights are random."
    )
    assert sentence(of_random, compared("clip", memory=ratio(1.0))) == (
        "Time was not compared. clip takes the same memory as dual. Masks are not compared: the "
        "weights are random."
    )


def test_of_many_variants_the_headline_says_how_many(summary):
    faster = [compared(f"faster-{n}", time=FASTER) for n in range(23)]
    assert sentence(summary, *faster) == "All 23 variants are faster than dual."
    slower = [compared(f"slower-{n}", time=SLOWER) for n in range(5)]
    text = sentence(summary, *faster, *slower)
    assert text == "23 of 28 variants are faster than dual; 5 of 28 variants are slower."


def test_a_refused_checkpoint_comes_before_everything(summary):
    against = AgainstTrivialBaseline(
        case="clip",
        baseline="empty",
        gIoU=0.1,
        baseline_gIoU=0.2,
        gIoU_points=points(-10.0, -12.0, -8.0),
        verdict="not better",
        refused=True,
    )
    refused = summary.model_copy(update={"against_trivial_baselines": [against]})
    text = sentence(refused, compared("clip", time=FASTER, masks=points(0.0, -1.0, 1.0)))
    assert text == (
        "The checkpoint of clip is refused: it is no better than the trivial baseline empty. clip "
        "is faster than dual. Its masks are as good."
    )


def test_where_nothing_is_compared_the_headline_says_so(summary):
    alone = summary.model_copy(update={"cases": summary.cases[:1]})
    assert in_a_sentence(alone) == ("dual was measured alone: there is nothing to compare it with.")
    assert in_a_sentence(alone.model_copy(update={"cases": []})) == "No model has been measured."
