"""Numbers as people read them."""

from __future__ import annotations


def kl(value: float) -> str:
    """A KL divergence in nats, three significant digits.

    >>> kl(0.0016), kl(0.0), kl(1.7432)
    ('0.00160', '0', '1.74')
    """
    if value == 0:
        return "0"
    if abs(value) < 1e-5:
        return f"{value:.1e}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.{_decimals(value)}f}"


def percent(share: float) -> str:
    """A share as percent.

    >>> percent(0.9864), percent(1.0)
    ('98.64%', '100.00%')
    """
    return f"{100 * share:.2f}%"


def signed(value: float) -> str:
    """A difference with its sign.

    >>> signed(0.0371), signed(-1.5), signed(0.0)
    ('+0.0371', '-1.5000', '+0.0000')
    """
    return f"{value:+.4f}"


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(4.21), seconds(75), seconds(3725)
    ('4.2 s', '1 min 15 s', '1 h 02 min')
    """
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _decimals(value: float) -> int:
    decimals = 2
    while abs(value) < 10 ** (2 - decimals) and decimals < 8:
        decimals += 1
    return decimals
