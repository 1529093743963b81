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


def noncentral_t_share_below(value: float, freedom: float, noncentrality: float) -> float:
    """Return the share of a noncentral t distribution's mass that lies below a value.

    It is the distribution of (Z + noncentrality) / sqrt(V / freedom), with Z of the standard normal
    and V of the chi-squared distribution.
    """
    from scipy.special import nctdtr

    return float(nctdtr(freedom, noncentrality, value))


def noncentrality(share: float, freedom: float, value: float) -> float:
    """Return the noncentrality with which a share of a noncentral t's mass lies below a value."""
    from scipy.special import nctdtrinc

    return float(nctdtrinc(freedom, share, value))
