# SPDX-License-Identifier: Apache-2.0
"""Two networks layer by layer: what PyTorch's computes, and how far MindSpore's is from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Union

import mindspore as ms
import numpy as np
import torch
from mindspore import nn

from ms_deform.port import checkpoint

Arrays = list[np.ndarray]
Layer = Union[nn.Cell, torch.nn.Module]

# Errors below are rounding in float32, whatever their growth.
_ROUNDING = 1e-6
# Of the error that leaves tolerance: where this share of it appears, it begins.
_SHARE = 0.3


def relative_error(actual: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """The largest difference over the largest expected value, or over the scale if that is larger.

    Equal infinities and NaNs in the same places are no difference; other ones, and another shape,
    are an infinite error.
    """
    if actual.shape != expected.shape:
        return np.inf
    exact = np.complex128 if np.iscomplexobj(expected) else np.float64
    actual, expected = actual.astype(exact), expected.astype(exact)
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0, np.abs(actual - expected)).max(initial=0)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=scale)
    return np.inf if np.isnan(difference) else float(difference / (largest or 1))


def arrays_of(value: object) -> Arrays:
    """The tensors among what a layer takes or gives: one, or nested tuples, lists and dicts."""
    if isinstance(value, ms.Tensor):
        return [checkpoint.to_array(value)]
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        # A copy: layers that work in place write over it.
        return [(value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()]
    values = value.values() if isinstance(value, Mapping) else value
    nested = isinstance(value, (Mapping, tuple, list))
    return [array for item in values for array in arrays_of(item)] if nested else []


class Event(NamedTuple):
    """A layer is entered with its inputs, or left with its outputs, in the call of that number."""

    layer: str
    call: int
    leaves: bool

    @property
    def title(self) -> str:
        times = f" #{self.call}" if self.call > 1 else ""
        return f"{self.layer or '(network)'}{times}"


@contextmanager
def watched(layers: Mapping[str, Layer], see: Callable[[Event, object], None]) -> Iterator[None]:
    """While it runs, `see` is told each event of the layers, and the tensors."""
    calls = Counter()
    handles = []

    # The hooks of both frameworks take the same arguments, and give nothing.
    def watch(name: str, layer: Layer) -> None:
        def enter(layer: Layer, inputs: tuple) -> None:
            calls[name] += 1
            see(Event(name, calls[name], False), inputs)

        def leave(layer: Layer, inputs: tuple, outputs: object) -> None:
            see(Event(name, calls[name], True), outputs)

        handles.append(layer.register_forward_pre_hook(enter))
        handles.append(layer.register_forward_hook(leave))

    for name, layer in layers.items():
        watch(name, layer)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Evidence:
    """What PyTorch had before and at an event, and MindSpore there: the first tensor of each."""

    before: np.ndarray
    expected: np.ndarray
    actual: np.ndarray


@dataclass(frozen=True)
class Step:
    """An event with its error, and where it lies: inside of which layer, and after which."""

    event: Event
    error: float
    inside: str
    after: Event | None
    evidence: Evidence | None

    @property
    def in_a_layer(self) -> bool:
        """Between entering a layer and leaving it, with no other in between."""
        return self.event.leaves and self.after == self.event._replace(leaves=False)


@dataclass
class Comparison:
    """MindSpore's run beside what PyTorch gave at the same events."""

    trace: dict[Event, Arrays]
    tolerance: float
    show: Callable[[Event, float, float, str], None]  # the errors in and out, and what is given
    steps: list[Step] = field(default_factory=list)
    extra: list[Event] = field(default_factory=list)  # PyTorch called the layer fewer times
    _open: list[Event] = field(default_factory=list)
    _entered: dict[Event, float] = field(default_factory=dict)
    _before: Arrays = field(default_factory=list)
    _failed: bool = False

    def see(self, event: Event, value: object) -> None:
        expected = self.trace.pop(event, None)
        if event.leaves:
            self._open.pop()
        if expected is None:
            self.extra.append(event)
        else:
            self._compare(event, arrays_of(value), expected)
        if not event.leaves:
            self._open.append(event)

    def _compare(self, event: Event, actual: Arrays, expected: Arrays) -> None:
        error = self._error(event, actual, expected)
        inside = event if event.leaves else (self._open or [event])[-1]
        after = self.steps[-1].event if self.steps else None
        evidence = None
        if error > _SHARE * self.tolerance and not self._failed:
            arrays = self._before, expected, actual
            evidence = Evidence(*(tensors[0] for tensors in arrays)) if all(arrays) else None
        self.steps.append(Step(event, error, inside.layer, after, evidence))
        self._failed |= error > self.tolerance
        self._before = expected
        if not event.leaves:
            self._entered[event] = error
            return
        shapes = ", ".join(str(array.shape) for array in actual)
        wanted = ", ".join(str(array.shape) for array in expected)
        given = shapes if shapes == wanted else f"{shapes or 'nothing'}, expected {wanted}"
        self.show(event, self._entered.get(event._replace(leaves=False), 0.0), error, given)

    def _error(self, event: Event, actual: Arrays, expected: Arrays) -> float:
        if len(actual) != len(expected):
            # A layer may take more, or by keyword; what it gives is the same.
            return np.inf if event.leaves else 0.0
        return max(map(relative_error, actual, expected), default=0.0)

    @property
    def first(self) -> Step | None:
        """The first step out of tolerance."""
        return next((step for step in self.steps if step.error > self.tolerance), None)

    @property
    def origin(self) -> Step | None:
        """Where the error of the first step begins: there or before."""
        first = self.first
        if first is None or not np.isfinite(first.error):
            return first
        return next(step for step in self.steps if step.error >= _SHARE * first.error)

    def is_gradual(self) -> bool:
        """Whether the error only grew there, from layer to layer."""
        before = self.steps[: self.steps.index(self.origin)]
        most = max((step.error for step in before), default=0.0)
        return most > max(_SHARE * self.origin.error, _ROUNDING) / 2


def trace(module: torch.nn.Module, layers: Mapping[str, Layer], inputs: Arrays) -> dict:
    """What each layer of PyTorch's network takes and gives, by event; the output among it."""
    events: dict[Event, Arrays] = {}

    def see(event: Event, value: object) -> None:
        events[event] = arrays_of(value)

    with torch.no_grad(), watched(layers, see):
        module(*map(torch.tensor, inputs))
    return events


def match(net: nn.Cell, module: torch.nn.Module, prefix: str) -> dict[str, tuple[nn.Cell, Layer]]:
    """The layers that both networks have, by MindSpore's name."""
    modules = dict(module.named_modules())
    return {
        name: (cell, modules[theirs])
        for name, cell in net.cells_and_names()
        for theirs in [f"{prefix}{name}".rstrip(".")]
        if theirs in modules
    }


def only_in_one(layers: Mapping[str, Layer], others: Mapping[str, Layer]) -> list[str]:
    """Names with types of layers that the other network lacks, without those inside of them."""
    # Where the other one has a single layer, as PyTorch has an LSTM, its parts are its own matter.
    parents = {name.rpartition(".")[0] for name in others if name}
    return [
        f"{name} ({type(layer).__name__})"
        for name, layer in layers.items()
        if name not in others and name.rpartition(".")[0] in parents
    ]
