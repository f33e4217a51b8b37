# SPDX-License-Identifier: Apache-2.0
"""The commands `python -m ms_deform convert` and `verify`; without MindSpore until they run."""

from __future__ import annotations

import argparse
import sys

from ms_deform.arguments import integers, number
from ms_deform.port import PortError

_CONVERT_EXAMPLES = """examples:
  python -m ms_deform convert net.pth --net net:Net -o net.ckpt
  python -m ms_deform convert net.pth --net 'models/net.py:Net(num_feat=16)' --output net.ckpt
  python -m ms_deform convert net.pth --net net:NetWithNewHead -o net.ckpt --partial
  python -m ms_deform convert net.pth --net net:Net -o net.ckpt --packed-offsets conv_offset
  python -m ms_deform convert gan.pth --net net:Net -o net.ckpt --key params --prefix generator.
"""


def add_convert(commands: argparse._SubParsersAction) -> None:
    convert = commands.add_parser(
        "convert",
        help="turn a PyTorch checkpoint into MindSpore's",
        epilog=_CONVERT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("checkpoint", help="what torch.save wrote, or .safetensors")
    add_network(convert)
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="a .ckpt file")
    convert.add_argument(
        "--partial", action="store_true", help="write what matched, even if something is off"
    )
    _add_names(convert)


def add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--net",
        required=True,
        metavar="MODULE:FACTORY",
        help="what makes the network, of a module or a .py file, if need be with literal arguments",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    """How the checkpoint's names become the network's."""
    parser.add_argument(
        "--packed-offsets",
        nargs="?",
        const="conv_offset",
        metavar="NAME",
        help="change the output channels of the convolutions of this name (default: conv_offset) "
        "from torchvision's order (y, x of each tap, then masks) to MindSpore's (all x, y, masks)",
    )
    parser.add_argument(
        "--key",
        help="the entry with the parameters, where the checkpoint has several (default: the only "
        "one, or params_ema beside params)",
    )
    parser.add_argument(
        "--prefix",
        help="take only names that begin so, without it (default: what comes before the network's "
        "names in the checkpoint, such as module.)",
    )


def run_convert(options: argparse.Namespace) -> int:
    from ms_deform.port import convert

    arguments = {name: value for name, value in vars(options).items() if name != "command"}
    try:
        return convert.run(**arguments)
    except PortError as error:
        print(f"convert: {error}", file=sys.stderr)
        return 1


_VERIFY_EXAMPLES = """examples:
  python -m ms_deform verify net.pth --torch torch_net:Net --net net:Net --input 1,3,64,64
  python -m ms_deform verify --torch torch_net:Net --net net:Net --inputs frames_and_flows.npz
  python -m ms_deform verify net.pth --torch 'models/torch_net.py:Net(num_feat=16)' \\
    --net 'models/net.py:Net(num_feat=16)' --input 1,48,64,64 --input 1,4,64,64
  python -m ms_deform verify net.pth --torch torch_net:Net --net net:Net --input 4,3,64,64 \\
    --gradients --steps 5 --learning-rate 0.01 --graph-mode --tolerance 1e-3 --seed 1
  python -m ms_deform verify gan.pth --torch torch_net:Net --net net:NetWithNewHead \\
    --input 1,3,64,64 --key params --prefix generator. --partial --packed-offsets conv_offset

exit status: 0 if all is within tolerance, 1 if not, or if a network fails, 2 for a wrong option.
"""


def add_verify(commands: argparse._SubParsersAction) -> None:
    verify = commands.add_parser(
        "verify",
        help="compare a port with PyTorch's network, layer by layer",
        epilog=_VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument(
        "checkpoint",
        nargs="?",
        help="what torch.save wrote, or .safetensors (default: PyTorch's fresh weights)",
    )
    verify.add_argument(
        "--torch",
        required=True,
        metavar="MODULE:FACTORY",
        help="what makes PyTorch's network, named as --net",
    )
    add_network(verify)
    inputs = verify.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--input",
        type=integers(),
        action="append",
        metavar="N,C,H,W",
        help="the shape of an input, once for each: random numbers, float32; small ones do, and "
        "what PyTorch's layers give is kept",
    )
    inputs.add_argument("--inputs", metavar="FILE", help="an .npz file of the inputs, in order")
    verify.add_argument(
        "--tolerance",
        type=number(float, 0),
        default=1e-4,
        help="for relative errors (default: 1e-4)",
    )
    verify.add_argument(
        "--graph-mode", action="store_true", help="run in graph mode as well, and train there"
    )
    verify.add_argument("--gradients", action="store_true", help="by inputs and parameters as well")
    verify.add_argument("--steps", type=number(int, 1), help="of training by plain SGD in both")
    verify.add_argument(
        "--learning-rate", type=number(float, 0), default=0.01, help="default: 0.01"
    )
    verify.add_argument(
        "--seed", type=number(int, 0), default=0, help="of all that is random (default: 0)"
    )
    verify.add_argument(
        "--partial", action="store_true", help="compare what matches, even if something is off"
    )
    _add_names(verify)


def run_verify(options: argparse.Namespace) -> int:
    try:
        _require_torch()
        from ms_deform.port import verify

        return verify.run(options)
    except PortError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise PortError(
            'it runs PyTorch\'s network, which needs torch: pip install "torch" "numpy>=1.25,<2"'
        ) from error
