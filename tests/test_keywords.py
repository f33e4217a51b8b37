# SPDX-License-Identifier: Apache-2.0
"""A keyword of another library's layer is answered with the one of ours that is meant."""

from __future__ import annotations

import inspect

import pytest

from ms_deform import (
    DCNv2Pack,
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    SecondOrderDeformableAlignment,
)

LAYERS = (
    DCNv2Pack,
    DeformConv2d,
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    SecondOrderDeformableAlignment,
)
# Layer, keyword that came, keyword that is meant.
MEANT = [
    (ModulatedDeformConv2dPack, "deformable_groups", "deform_groups"),
    (DeformConv2dPack, "deformable_groups", "deform_groups"),
    (DCNv2Pack, "deform_groups", "deformable_groups"),
    (SecondOrderDeformableAlignment, "num_deformable_group", "deform_groups"),
    (DeformConv2d, "has_bias", "bias"),
    (DCNv2Pack, "group", "groups"),
    (DeformConv2dPack, "dilations", "dilation"),
]


@pytest.mark.parametrize(("layer", "keyword", "meant"), MEANT)
def test_the_keyword_that_is_meant_is_named_and_works(layer, keyword, meant):
    with pytest.raises(TypeError) as caught:
        layer(8, 8, 3, **{keyword: 2})
    answer = f"there is no argument '{keyword}'; it is called '{meant}' here: {meant}=2"
    assert str(caught.value) == f"{layer.__name__}: {answer}"
    layer(8, 8, 3, **{meant: 2})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("keyword", ("padding_mode", "norm_cfg", "pad_mode"))
def test_what_no_layer_has_is_to_be_left_out(layer, keyword):
    message = rf"^{layer.__name__}: there is no argument '{keyword}'; leave it out"
    with pytest.raises(TypeError, match=message):
        layer(8, 8, 3, **{keyword: "zeros"})


def test_groups_that_follow_from_the_offset_are_to_be_left_out():
    message = (
        "there is no argument 'deform_groups'; leave it out: .* follows from the offset's shape"
    )
    with pytest.raises(TypeError, match=message):
        DeformConv2d(8, 8, 3, deform_groups=2)


def test_im2col_step_is_to_be_left_out_where_mmcv_has_none():
    with pytest.raises(TypeError, match="'im2col_step'; leave it out: it changes no result"):
        ModulatedDeformConv2dPack(8, 8, 3, im2col_step=32)
    DeformConv2dPack(8, 8, 3, im2col_step=64)


@pytest.mark.parametrize("layer", LAYERS)
def test_an_unknown_keyword_is_answered_with_all_there_are(layer):
    names = ", ".join(inspect.signature(layer).parameters)
    with pytest.raises(TypeError) as caught:
        layer(8, 8, 3, dilation_groups=2)
    assert str(caught.value) == (
        f"{layer.__name__}: there is no argument 'dilation_groups'; expected {names}"
    )


class Own(DeformConv2d):
    def __init__(self, channels: int, **more) -> None:
        super().__init__(channels, channels, 3, **more)


def test_layers_of_ones_own_answer_under_their_name():
    with pytest.raises(
        TypeError, match="Own: there is no argument 'has_bias'; it is called 'bias'"
    ):
        Own(4, has_bias=True)


def test_layers_keep_their_signature():
    parameters = [*inspect.signature(DeformConv2d).parameters]
    assert parameters[:3] == ["in_channels", "out_channels", "kernel_size"]
    assert parameters[-1] == "backend"
