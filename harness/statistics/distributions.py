"""Quantiles and tails of the distributions that intervals are made of.

`scipy.special` has the functions that `scipy.stats` calls for these: it gives the same numbers, and
takes a third of the time to import. It is imported inside the functions, since most commands read
runs without computing an interval.
"""


def student_quantile(share: float, freedom: float) -> float:
    """Return the value below which Student's t distribution has a share of its mass.

    Args:
        share: between 0 and 1.
        freedom: degrees of freedom, above 0; they need not be a whole number.
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def normal_quantile(share: float) -> float:
    """Return the value below which the standard normal distribution has a share of its mass."""
    from scipy.special import ndtri

    return float(ndtri(share))


def normal_share_below(value: float) -> float:
    """Return the share of the standard normal distribution's mass that lies below a value."""
    from scipy.special import ndtr

    return float(ndtr(value))
