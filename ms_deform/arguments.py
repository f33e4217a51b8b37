# SPDX-License-Identifier: Apache-2.0
"""What arguments of the command line are, for argparse's `type`."""

from __future__ import annotations

from collections.abc import Callable


def integers(count: int | None = None) -> Callable[[str], tuple[int, ...]]:
    """Of "64,64,3": as many as are asked for, or any number of them."""

    def parse(text: str) -> tuple[int, ...]:
        values = tuple(map(int, text.split(",")))
        if len(values) != (count or len(values)) or min(values) < 1:
            raise ValueError
        return values

    parse.__name__ = f"{count or 'list of'} positive integers with commas"
    return parse


def number(kind: type, least: int) -> Callable[[str], float]:
    """An int or a float that is not less."""

    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise ValueError
        return value

    parse.__name__ = f"{kind.__name__} from {least} on"
    return parse


def numbers(text: str) -> tuple[float, ...]:
    """Of "0.5,0.5,0.5": any number of them."""
    return tuple(map(float, text.split(",")))


def call(text: str) -> int | str:
    """Of a layer that is called several times: which one, or all."""
    return text if text == "all" else int(text)


numbers.__name__, call.__name__ = "numbers with commas", "number or 'all'"
