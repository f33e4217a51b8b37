# SPDX-License-Identifier: Apache-2.0
"""set_deterministic, and MindSpore's own setting, reach the kernels of calls after them."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import pytest

import ms_deform
from ms_deform.backends import aot
from networks import Call, call_tensors

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """What the kernels of each call so far were asked."""
    seen = []

    def prepare(call):
        seen.append(call.deterministic)
        prepared = original(call)
        assert prepared[0].deterministic is call.deterministic
        return prepared

    original = aot.prepare
    monkeypatch.setattr(aot, "prepare", prepare)
    yield seen
    ms_deform.set_deterministic(False)


def call() -> None:
    Call()(**call_tensors())


def test_a_call_is_deterministic_from_when_it_is_asked(mode: str, asked: list[bool]) -> None:
    call()
    ms_deform.set_deterministic(True)
    call()
    ms_deform.set_deterministic(False)
    call()
    assert asked == [False, True, False]


def test_mindspores_own_setting_counts(mode: str, asked: list[bool]) -> None:
    before = ms.get_context("deterministic")
    ms.set_context(deterministic="ON")
    try:
        call()
    finally:
        ms.set_context(deterministic=before)
    assert asked == [True]


@pytest.mark.parametrize("value", [1, "ON", None])
def test_what_is_not_a_bool_is_refused(value: object) -> None:
    message = f"'deterministic' must be a bool, got {value!r}"
    with pytest.raises(TypeError, match=message):
        ms_deform.set_deterministic(value)
