# SPDX-License-Identifier: Apache-2.0
"""`doctor` tells what calls and layers take on an Ascend device, or on one that is only named."""

from __future__ import annotations

import json

import pytest

from cann_toolkit import make_toolkit
from ms_deform import doctor
from ms_deform.__main__ import main
from ms_deform.ascend_report import Layer, describe_device, describe_layer
from ms_deform.install.ai_core import PRODUCTS, product_of
from ms_deform.install.aicpu_operators import kernel_list


@pytest.fixture(autouse=True)
def no_cann(monkeypatch) -> None:
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    monkeypatch.delenv("ASCEND_CUSTOM_OPP_PATH", raising=False)


@pytest.fixture
def cann(monkeypatch, tmp_path):
    """A CANN 9.1 with an AICPU package beside it."""
    make_toolkit(tmp_path, "9.1")
    opp = tmp_path / "opp"
    opp.mkdir(exist_ok=True)
    (opp / "version.info").write_text("Version=7.7.0.1.238\nversion_dir=9.1.0\n")
    config = tmp_path / "ours/op_impl/cpu/config/cust_aicpu_kernel.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps(kernel_list()))
    monkeypatch.setenv("ASCEND_OPP_PATH", str(opp))
    monkeypatch.setenv("ASCEND_CUSTOM_OPP_PATH", str(tmp_path / "ours"))
    return tmp_path


def told(*arguments: str, capsys) -> str:
    assert main(["doctor", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("soc", "lines"),
    [
        (
            "Ascend910B4",
            [
                "Ascend910B4: Atlas A2; CANN 9.1.0",
                "inference in graph mode, O0 and O1: aclnnDeformableConv2d",
                "training in graph mode, O0 and O1: composition: aclnnDeformableConv2dBackward is "
                "for Ascend 950, this is Ascend910B4",
            ],
        ),
        (
            "ascend950",
            [
                "ascend950: Ascend 950; CANN 9.1.0",
                "training in graph mode, O0 and O1: aclnnDeformableConv2dBackward",
            ],
        ),
        (
            "Ascend310P3",
            [
                "inference in graph mode, O0 and O1: composition: aclnnDeformableConv2d is for "
                "Atlas A2, Atlas A3, Ascend 950, this is Ascend310P3"
            ],
        ),
        ("Ascend620", ["Ascend620: a product of no known rules; CANN 9.1.0"]),
        ("", ["no device: name one by --soc; CANN 9.1.0"]),
    ],
)
def test_product_cann_and_routes_are_told(soc, lines, cann):
    found = describe_device(soc)
    assert set(lines) <= set(found)
    assert f'set_backend("aicpu"): the kernels in {cann}/ours' in found


def test_without_cann_that_is_told():
    found = "\n".join(describe_device("Ascend910B4"))
    assert "Ascend910B4: Atlas A2; no CANN (ASCEND_OPP_PATH names no folder)" in found
    assert "source CANN's set_env.sh" in found
    assert "python -m ms_deform build --aicpu" in found


def test_the_device_is_asked_where_none_is_named(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_SOC_PROGRAM", "print('a warning'); print('ascend910b')")
    assert "ascend910b: Atlas A2" in told("--layer", "64,64,3", capsys=capsys)


def test_a_layer_of_a_named_product_is_told_with_reasons(capsys):
    report = told(
        "--soc", "Ascend910B4", "--layer", "64,64,3", "--offset-groups", "8", capsys=capsys
    )
    for line in (
        "training, PyNative, O0, O1: GridSampler2D of each of 8 offset groups, 8 channels, on the "
        "AI Core",
        "training, O2: DeformableOffsets of each of 8 offset groups, 8 channels and 48 of zeros, "
        "on the AI Core",
        "DeformableOffsets of all channels at once, 64 channels: DeformableOffsets on Atlas A2 "
        "takes one offset group, got 8",
        "GridSampler2D of each of 8 offset groups, 8 channels: taken",
    ):
        assert f"  {line}\n" in report
    assert "8 channels and 48 of zeros: moves 5." in report


def test_a_layer_that_leaves_the_ai_core_is_told_too(capsys):
    report = told("--soc", "Ascend310P3", "--layer", "64,64,3", capsys=capsys)
    product = "Atlas inference series (310P)"
    left = f"DeformableOffsetsGrad on {product} has no AI Core operator"
    layout = "DeformableOffsets of all channels at once, 64 channels and 64 of zeros"
    assert f"training, O2: {layout}, NOT on the AI Core: {left}\n" in report
    assert f"inference, MindIR, O2: {layout}, on the AI Core\n" in report


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_every_product_has_a_report(product):
    layer = Layer(24, 8, 5, groups=2, offset_groups=3, size=(20, 30))
    lines = list(describe_layer(layer, product))
    assert len(lines) == 3 + 1 + 3
    assert product is product_of(product.socs[0].rstrip("*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "64,64,3"], "--layer needs a product, got ''; --soc Ascend910B4"),
        (
            ["--soc", "Ascend910B4", "--layer", "64,64,3", "--offset-groups", "7"],
            "input.shape[1] must be a multiple of the offset groups",
        ),
        (
            ["--soc", "Ascend910B4", "--layer", "64,64,3", "--groups", "7"],
            "input.shape[1] must be a positive multiple of weight.shape[1]",
        ),
    ],
)
def test_a_layer_that_is_none_is_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_SOC_PROGRAM", "raise SystemExit(1)")
    assert main(["doctor", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("layer", ["64,64", "64,64,0", "a,b,c"])
def test_a_layer_is_three_positive_integers(layer, capsys):
    with pytest.raises(SystemExit):
        main(["doctor", "--soc", "Ascend910B4", "--layer", layer])
    assert "invalid 3 positive integers with commas value" in capsys.readouterr().err
