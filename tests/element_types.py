# SPDX-License-Identifier: Apache-2.0
"""The operator's dtypes in NumPy, which lacks bfloat16: values in float64, and their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

ELEMENT_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


def encoded(array: np.ndarray, dtype: str) -> bytes:
    """The bytes of values that dtype holds."""
    if dtype == "bfloat16":
        data = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    else:
        data = array.astype(dtype).tobytes()
    same = np.array_equal(decoded(data, dtype), array.ravel(), equal_nan=True)
    assert same, f"not values of {dtype}"
    return data


def decoded(data: bytes, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).astype(float)
    return np.frombuffer(data, dtype).astype(float)


def held_in(dtype: str, call: dict[str, Any]) -> dict[str, Any]:
    """The call with every array rounded to what dtype holds, still in float64.

    Below float64 offsets become multiples of 1/1024: float32 then adds coordinates exactly, and no
    sample crosses a whole number, where the gradient jumps, by rounding alone.
    """
    if dtype != "float64":
        call = {**call, "offset": np.round(call["offset"] * 1024) / 1024}
    return {
        name: rounded(value, dtype) if isinstance(value, np.ndarray) else value
        for name, value in call.items()
    }


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """To the nearest values that dtype holds, in float64; beyond its range to infinity."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return array.astype(dtype).astype(float)
    # To the nearest, ties to even; a NaN's bits would overflow.
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(array), np.nan, bits.view(np.float32)).astype(float)
