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


def percent_number(share: float) -> str:
    """A share as percent, where a header says so.

    >>> percent_number(0.9864)
    '98.64'
    """
    return f"{100 * share:.2f}"


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


def size(value: float) -> str:
    """A number of bytes.

    >>> size(512), size(6696064), size(25276510208)
    ('512 B', '6.4 MiB', '23.5 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def several(number: int, thing: str) -> str:
    """A number and its noun, plural where it is not one.

    >>> several(1, "thread"), several(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count(number)} {thing}{'' if number == 1 else 's'}"


def count(value: float) -> str:
    """A whole number with its thousands.

    >>> count(61440)
    '61,440'
    """
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """How many times something else.

    >>> ratio(0.934), ratio(3.765)
    ('0.93×', '3.77×')
    """
    return f"{value:.2f}×"


def figure(value: float, unit: str) -> str:
    """A gate's figure in its unit.

    >>> figure(0.0016, "nats"), figure(0.05, "share"), figure(-0.002, "ln ratio")
    ('0.00160 nats', '5.00%', '-0.0020 (ln)')
    """
    if unit == "share":
        return percent(value)
    if unit == "ln ratio":
        return f"{signed(value)} (ln)"
    if unit == "ratio":
        return f"{value:.3g} ×"
    return f"{kl(value)} {unit}" if unit == "nats" else f"{value:.4g} {unit}"


def factor(value: float) -> str:
    """A ratio of speeds.

    >>> factor(0.8234), factor(0.0138)
    ('0.82', '0.014')
    """
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def speed(value: float) -> str:
    """Tokens a second.

    >>> speed(25231.4), speed(468.2), speed(4.87)
    ('25,231', '468', '4.87')
    """
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _decimals(value: float) -> int:
    decimals = 2
    while abs(value) < 10 ** (2 - decimals) and decimals < 8:
        decimals += 1
    return decimals
