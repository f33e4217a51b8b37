# SPDX-License-Identifier: Apache-2.0
"""The command `python -m ms_deform verify`: whether a port computes what PyTorch's network does."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import mindspore as ms
import numpy as np

from ms_deform.nn import DeformConv2d
from ms_deform.port import PortError
from ms_deform.port.convert import packed_order
from ms_deform.port.culprits import culprits, notes, suspects, tried
from ms_deform.port.factory import reason_of
from ms_deform.port.layers import (
    Arrays,
    Comparison,
    Event,
    Step,
    arrays_of,
    match,
    only_in_one,
    relative_error,
    trace,
    watched,
)
from ms_deform.port.pair import inputs_of, load
from ms_deform.port.steps import Problem, gradients, statistics, train
from ms_deform.viz import record_offsets

_OUTPUT = Event("", 1, True)
# So near to an integer two roundings of one offset lie on both sides of it.
_NEAR = 1e-5


def run(options: argparse.Namespace) -> int:
    """The command `verify`: 0 if all that was asked for is within tolerance."""
    return 0 if _Verification(options).passes() else 1


class _Verification:
    """Both networks, and what the command line asks of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tolerance: float = options.tolerance
        self.inputs = inputs_of(options)
        self.pair = load(options)
        self.layers = match(self.pair.net, self.pair.module, self.pair.prefix)

    def passes(self) -> bool:
        asked = ("graph_mode", "gradients", "steps")
        more = [name for name in asked if getattr(self.options, name)]
        expected = self._expected()
        outputs = expected[_OUTPUT]
        if not self._layers_pass(expected):
            if more:
                print(f"left out, as the outputs differ: {', '.join(more)}")
            return False
        trained_in_one = self.pair.trained_in_one()
        if trained_in_one:
            print(f"note: trained in one network only: {', '.join(trained_in_one)}")
        if self.options.graph_mode:
            ms.set_context(mode=ms.GRAPH_MODE)
        passed = [getattr(self, f"_{name}_pass")(outputs) for name in more]
        return all(passed)

    def _expected(self) -> dict[Event, Arrays]:
        """What PyTorch's network gives, layer by layer."""
        shapes = ", ".join(f"{tuple(array.shape)} {array.dtype}" for array in self.inputs)
        print(f"inputs: {shapes}\nPyTorch's network ...", end=" ", flush=True)
        modules = {name: module for name, (_, module) in self.layers.items()}
        with _failing(self.options.torch, f"on inputs {shapes}"), _timed():
            events = trace(self.pair.module.eval(), modules, self.inputs)
        if _OUTPUT not in events:
            raise PortError(
                f"--torch: {self.options.torch} does not call {self.pair.prefix.rstrip('.')}, "
                f"which {self.options.net} is: name what makes that part of it"
            )
        if self.options.packed_offsets:
            _pack(events, modules, self.options.packed_offsets)
        return events

    def _layers_pass(self, expected: dict[Event, Arrays]) -> bool:
        self._print_unmatched()
        table = _Table(self.layers, self.tolerance)
        comparison = Comparison(expected, self.tolerance, table.row)
        cells = {name: cell for name, (cell, _) in self.layers.items()}
        print("MindSpore's network, with relative errors: the largest difference from PyTorch's")
        print("values over the largest of those; ! is out of tolerance")
        table.head()
        ms.set_context(mode=ms.PYNATIVE_MODE)
        failure = None
        with watched(cells, comparison.see):
            try:
                self.pair.net.set_train(False)(*map(ms.Tensor, self.inputs))
            except Exception as error:  # the user's network, or any of MindSpore's reasons
                failure = f"{self.options.net} fails, mend it there: {reason_of(error)}"
        named = None
        if failure is None:
            _print_calls("calls in PyTorch only", comparison.trace)
            _print_calls("calls in MindSpore only", comparison.extra)
        if comparison.first:
            named = self._print_culprit(comparison)
        elif failure is None:
            worst = max(step.error for step in comparison.steps)
            print(f"all within {self.tolerance:.1e}: the largest error is {worst:.1e}")
        for note in notes(self.layers, named):
            print(note)
        if failure:
            raise PortError(failure)
        return comparison.first is None

    def _print_unmatched(self) -> None:
        prefix, cells = self.pair.prefix, dict(self.pair.net.cells_and_names())
        modules = {
            name[len(prefix) :]: module
            for name, module in self.pair.module.named_modules()
            if name.startswith(prefix)
        }
        for title, ours, others in (("PyTorch", modules, cells), ("MindSpore", cells, modules)):
            names = only_in_one(ours, others)
            if names:
                print(f"layers in {title} only: {', '.join(names)}")

    def _print_culprit(self, comparison: Comparison) -> str | None:
        """Says where the error begins, and why; the layer that is to blame, if one is."""
        first, origin = comparison.first, comparison.origin
        print(
            f"first out of tolerance ({self.tolerance:.1e}): {self._place(first)}, "
            f"{first.error:.1e}"
        )
        if comparison.is_gradual():
            print(
                "the error grows from layer to layer: by rounding, for which there is a larger "
                "--tolerance, or by many small differences"
            )
            return None
        if origin != first:
            print(f"the error begins before: {self._place(origin)}, {origin.error:.1e}")
        for line in self._causes(origin):
            print(line)
        return origin.event.layer if origin.in_a_layer else None

    def _causes(self, step: Step) -> list[str]:
        cell, module = self.layers[step.event.layer if step.in_a_layer else step.inside]
        found = []
        if step.in_a_layer:
            found = [culprit.text for culprit in culprits(cell, module) if not culprit.in_training]
        if not found and step.evidence:
            found = [text for text in [tried(step.evidence)] if text]
        if found:
            return [f"known culprit: {text}" for text in found]
        suspected = suspects(cell, step.error)
        mend = "no known culprit: compare what both networks compute there"
        return [f"suspect: {text}" for text in suspected] or [mend]

    def _place(self, step: Step) -> str:
        """A layer, or between which ones."""
        if step.in_a_layer:
            return f"{step.event.title} ({self._type(step.event.layer)})"
        inside = f"in construct of {step.inside or 'the network'} ({self._type(step.inside)})"
        after, before = step.after, step.event
        if after is None:
            return "inputs of the network"
        if before.leaves:
            return f"after {after.title}, {inside}"
        if after.leaves:
            return f"between {after.title} and {before.title}, {inside}"
        return f"before {before.title}, {inside}"

    def _type(self, layer: str) -> str:
        return type(self.layers[layer][0]).__name__

    def _graph_mode_pass(self, outputs: Arrays) -> bool:
        print("graph mode, compiled and run ...", end=" ", flush=True)
        with _failing(self.options.net, "in graph mode"), _timed():
            given = arrays_of(self.pair.net.set_train(False)(*map(ms.Tensor, self.inputs)))
        same_number = len(given) == len(outputs)
        error = max(map(relative_error, given, outputs), default=0.0) if same_number else np.inf
        print(f"outputs in graph mode: {_error(error, self.tolerance)}")
        return error <= self.tolerance

    def _gradients_pass(self, outputs: Arrays) -> bool:
        problem = self._problem(outputs)
        print(
            "gradients of a mean square distance by input and parameter; their relative errors are"
        )
        print("over 1 % of the largest of all parameters at least ...", end=" ", flush=True)
        with _failing(self.options.net, "while gradients are taken"), _timed():
            errors = gradients(self.pair, problem)
        width = max(map(len, errors))
        for name, error in errors.items():
            print(f"{name:<{width}}  {_error(error, self.tolerance)}")
        wrong = [name for name, error in errors.items() if not error <= self.tolerance]
        if wrong:
            # The gradient goes backwards.
            print(f"gradients out of tolerance: {len(wrong)}; first, from behind: {wrong[-1]}")
            for line in self._offsets_on_integers():
                print(f"known culprit: {line}")
        return not wrong

    def _offsets_on_integers(self) -> Iterator[str]:
        if not any(isinstance(cell, DeformConv2d) for _, cell in self.pair.net.cells_and_names()):
            return
        with record_offsets(self.pair.net) as records:
            self.pair.net(*map(ms.Tensor, self.inputs))
        for name, calls in records.items():
            offsets = np.concatenate([call.offset.ravel() for call in calls] or [np.zeros(0)])
            near = np.abs(offsets - np.round(offsets)) <= _NEAR * np.maximum(1, np.abs(offsets))
            if near.any():
                yield (
                    f"{near.sum()} of {offsets.size} offsets of {name} sit on an integer, where "
                    "the gradient jumps: rounding decides which side it is taken from. Compare "
                    "with weights that predict others"
                )

    def _steps_pass(self, outputs: Arrays) -> bool:
        problem = self._problem(outputs)
        mode = "graph mode" if self.options.graph_mode else "PyNative mode"
        print(f"training, plain SGD, dropout left out, MindSpore in {mode}")
        print("step  PyTorch's loss  MindSpore's loss  relative error", flush=True)
        passed = True
        with _failing(self.options.net, "in training"):
            losses = train(self.pair, problem, self.options.steps, self.options.learning_rate)
            for step, (theirs, ours) in enumerate(losses, 1):
                error = relative_error(np.array(ours), np.array(theirs))
                passed &= error <= self.tolerance and np.isfinite(theirs)
                told = _error(error, self.tolerance)
                print(f"{step:4}  {theirs:14.6g}  {ours:16.6g}  {told}", flush=True)
        if not np.isfinite(theirs):
            print("the loss is not finite: take a smaller --learning-rate")
        return self._statistics_pass() and passed

    def _statistics_pass(self) -> bool:
        errors = statistics(self.pair)
        wrong = [name for name, error in errors.items() if not error <= self.tolerance]
        if errors:
            worst = _error(max(errors.values()), self.tolerance)
            print(f"running means and variances after it, {len(errors)}: {worst}")
        for name in wrong:
            print(f"  {name}: {errors[name]:.1e}")
        layers = {name.rpartition(".")[0] for name in wrong}
        for text in dict.fromkeys(c.text for name in layers for c in culprits(*self.layers[name])):
            print(f"known culprit: {text}")
        return not wrong

    def _problem(self, outputs: Arrays) -> Problem:
        return Problem.at_random(self.inputs, outputs, self.options.seed)


class _Table:
    """A row for each call of a layer, as it comes."""

    def __init__(self, layers: dict[str, tuple], tolerance: float) -> None:
        self.types = {name: type(cell).__name__ for name, (cell, _) in layers.items()}
        self.tolerance = tolerance
        self.widths = [
            max(map(len, column)) for column in (["(network)", *layers], self.types.values())
        ]

    def head(self) -> None:
        self._print("layer", "type", "error in", "error out", "   output")

    def row(self, event: Event, error_in: float, error_out: float, given: str) -> None:
        mark = "  " if error_out <= self.tolerance else " !"
        row = event.title, self.types[event.layer], f"{error_in:.1e}", f"{error_out:.1e}"
        self._print(*row, f"{mark} {given}")

    def _print(self, title: str, kind: str, error_in: str, error_out: str, rest: str) -> None:
        title, kind = (text.ljust(width) for text, width in zip((title, kind), self.widths))
        print(f"{title}  {kind}  {error_in:>8}  {error_out:>9}{rest}", flush=True)


def _error(error: float, tolerance: float) -> str:
    return f"{error:.1e}{'' if error <= tolerance else ' ! out of tolerance'}"


def _print_calls(title: str, events: Iterable[Event]) -> None:
    titles = [event.title for event in events if event.leaves]
    if titles:
        print(f"{title}: {', '.join(titles)}")


@contextmanager
def _timed() -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:.1f} s", flush=True)


@contextmanager
def _failing(name: str, when: str) -> Iterator[None]:
    """Whatever a user's network raises, in one line."""
    try:
        yield
    except PortError:
        raise
    except Exception as error:
        print()
        raise PortError(
            f"{name} fails {when}, mend it there or give other inputs by --input or --inputs: "
            f"{reason_of(error)}"
        ) from error


def _pack(events: dict[Event, Arrays], modules: dict, attribute: str) -> None:
    """Gives what convolutions of that name put out the packed order of their port."""
    for event, arrays in events.items():
        if event.leaves and f".{event.layer}".endswith(f".{attribute}"):
            order = packed_order(event.layer, modules[event.layer].weight.shape)
            events[event] = [array[:, order] for array in arrays]
