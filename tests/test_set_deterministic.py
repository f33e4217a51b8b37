# SPDX-License-Identifier: Apache-2.0
"""set_deterministic, and MindSpore's own setting, reach the kernels of calls after them."""

from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import pytest

import ms_deform
from ms_deform import dispatch
from networks import Call, call_tensors


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """What the primitives of the calls made so far were asked."""
    seen = []

    def forward_primitive(device_target, geometry, deterministic, *name):
        seen.append(deterministic)
        return original(device_target, geometry, deterministic, *name)

    original = dispatch.forward_primitive
    monkeypatch.setattr(dispatch, "forward_primitive", forward_primitive)
    dispatch.primitives_of.cache_clear()
    yield seen
    ms_deform.set_deterministic(False)
    dispatch.primitives_of.cache_clear()


def call() -> None:
    Call()(**call_tensors())


def test_a_call_is_deterministic_from_when_it_is_asked(mode: str, asked: list[bool]) -> None:
    call()
    ms_deform.set_deterministic(True)
    call()
    ms_deform.set_deterministic(False)
    call()
    assert asked[:2] == [False, True]
    assert asked[2:] in ([], [False])  # the first call's primitive is still there


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
