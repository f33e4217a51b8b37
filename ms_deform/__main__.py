# SPDX-License-Identifier: Apache-2.0
"""The commands `python -m ms_deform build`, `install-aicpu`, `doctor`, `convert` and `verify`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ms_deform import doctor
from ms_deform.ascend_report import Layer
from ms_deform.install import aicpu_install, aicpu_package, aicpu_sdk, builder, library


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ms_deform")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the kernel libraries that are out of date")
    build.add_argument(
        "--cuda", action="store_true", help="the library for NVIDIA GPUs as well; needs nvcc"
    )
    build.add_argument(
        "--aicpu",
        action="store_true",
        help="the vendor package for Ascend's AICPU as well; needs CANN",
    )
    build.add_argument(
        "--arch",
        metavar="ARCH",
        nargs="+",
        default=[],
        help="with --cuda: GPUs to build for, such as sm_80 "
        f"(default: those of {', '.join(builder.CUDA_ARCHITECTURES)} that nvcc knows)",
    )
    build.add_argument("--force", action="store_true", help="build those up to date as well")
    build.add_argument(
        "--directory",
        metavar="DIR",
        help="where the libraries go (default: MS_DEFORM_LIBRARY_DIR or the package)",
    )
    install = commands.add_parser(
        "install-aicpu", help="put the AICPU vendor package where CANN looks for it"
    )
    install.add_argument(
        "folder",
        nargs="?",
        metavar="DIR",
        help="default: where ASCEND_CUSTOM_OPP_PATH points first, or, where it is not set, "
        "$ASCEND_OPP_PATH/vendors/ms_deform. In CANN's vendors the package is put first in "
        "load_priority of config.ini; elsewhere ASCEND_CUSTOM_OPP_PATH must name it",
    )
    install.add_argument(
        "--remove",
        action="store_true",
        help="take it away again: its own files there, and its name in config.ini",
    )
    _add_doctor(commands)
    _add_convert(commands)
    _add_verify(commands)
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return _doctor(options)
    if options.command == "convert":
        return _convert(options)
    if options.command == "verify":
        return _verify(options)
    if options.command == "install-aicpu":
        return _install_aicpu(options.folder, options.remove)
    if options.arch and not options.cuda:
        build.error("--arch goes with --cuda")
    try:
        for target in ("cpu", "cuda") if options.cuda else ("cpu",):
            architectures = options.arch if target == "cuda" else ()
            path = builder.build(target, options.force, options.directory, (), architectures)
            info = library.read_info(path)
            print(f"{path} ({info.machine}: {', '.join(info.isas)})")
        if options.aicpu:
            sdk = aicpu_sdk.Sdk.find()
            package = aicpu_package.build_package(sdk, options.directory)
            print(f"{package} (SDK: layout of {sdk.layout}, {sdk.root})")
    except (builder.BuildError, library.LibraryError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _install_aicpu(target: str | None, remove: bool) -> int:
    try:
        if remove:
            print(f"removed from {aicpu_install.remove_package(target)}")
            return 0
        installed = aicpu_install.install_package(target)
    except builder.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(installed)
    if not aicpu_install.is_found(installed):
        variable = "ASCEND_CUSTOM_OPP_PATH"
        print(f"before MindSpore starts: export {variable}={installed}:${variable}")
    return 0


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what works here, and what mends the rest",
        epilog="--soc and --layer tell of Ascend alone: python -m ms_deform doctor "
        "--soc Ascend910B4 --layer 64,64,3 --offset-groups 8",
    )
    parser.add_argument("--soc", help="an Ascend SoC, such as Ascend910B4, instead of the device")
    parser.add_argument(
        "--layer",
        type=_integers(3),
        metavar="C_IN,C_OUT,K",
        help="whether Ascend's AI Core computes the composition of this layer, and why",
    )
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--offset-groups", type=int, default=1)
    parser.add_argument(
        "--size",
        type=_integers(2),
        default=(128, 128),
        metavar="H,W",
        help="of the layer's images (default: 128,128)",
    )


def _integers(count: int | None = None) -> Callable[[str], tuple[int, ...]]:
    def parse(text: str) -> tuple[int, ...]:
        values = tuple(map(int, text.split(",")))
        if len(values) != (count or len(values)) or min(values) < 1:
            raise ValueError
        return values

    parse.__name__ = f"{count or 'list of'} positive integers with commas"
    return parse


def _number(kind: type, least: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise ValueError
        return value

    parse.__name__ = f"{kind.__name__} from {least} on"
    return parse


def _doctor(options: argparse.Namespace) -> int:
    if options.soc is None and options.layer is None:
        return doctor.main()
    layer = None
    if options.layer is not None:
        layer = Layer(*options.layer, options.groups, options.offset_groups, options.size)
    return doctor.report_ascend(options.soc, layer)


_CONVERT_EXAMPLES = """examples:
  python -m ms_deform convert net.pth --net net:Net -o net.ckpt
  python -m ms_deform convert net.pth --net 'models/net.py:Net(num_feat=16)' --output net.ckpt
  python -m ms_deform convert net.pth --net net:NetWithNewHead -o net.ckpt --partial
  python -m ms_deform convert net.pth --net net:Net -o net.ckpt --packed-offsets conv_offset
  python -m ms_deform convert gan.pth --net net:Net -o net.ckpt --key params --prefix generator.
"""


def _add_convert(commands: argparse._SubParsersAction) -> None:
    convert = commands.add_parser(
        "convert",
        help="turn a PyTorch checkpoint into MindSpore's",
        epilog=_CONVERT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("checkpoint", help="what torch.save wrote, or .safetensors")
    _add_network(convert)
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="a .ckpt file")
    convert.add_argument(
        "--partial", action="store_true", help="write what matched, even if something is off"
    )
    _add_names(convert)


def _add_network(parser: argparse.ArgumentParser) -> None:
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


def _convert(options: argparse.Namespace) -> int:
    # They need MindSpore, which `build` and `doctor` can do without.
    from ms_deform.port import PortError, convert

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


def _add_verify(commands: argparse._SubParsersAction) -> None:
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
    _add_network(verify)
    inputs = verify.add_mutually_exclusive_group(required=True)
    inputs.add_argument(
        "--input",
        type=_integers(),
        action="append",
        metavar="N,C,H,W",
        help="the shape of an input, once for each: random numbers, float32; small ones do, and "
        "what PyTorch's layers give is kept",
    )
    inputs.add_argument("--inputs", metavar="FILE", help="an .npz file of the inputs, in order")
    verify.add_argument(
        "--tolerance",
        type=_number(float, 0),
        default=1e-4,
        help="for relative errors (default: 1e-4)",
    )
    verify.add_argument(
        "--graph-mode", action="store_true", help="run in graph mode as well, and train there"
    )
    verify.add_argument("--gradients", action="store_true", help="by inputs and parameters as well")
    verify.add_argument("--steps", type=_number(int, 1), help="of training by plain SGD in both")
    verify.add_argument(
        "--learning-rate", type=_number(float, 0), default=0.01, help="default: 0.01"
    )
    verify.add_argument(
        "--seed", type=_number(int, 0), default=0, help="of all that is random (default: 0)"
    )
    verify.add_argument(
        "--partial", action="store_true", help="compare what matches, even if something is off"
    )
    _add_names(verify)


def _verify(options: argparse.Namespace) -> int:
    try:
        import torch  # noqa: F401
    except ImportError:
        print(
            'verify: it runs PyTorch\'s network, which needs torch: pip install "torch" '
            '"numpy>=1.25,<2"',
            file=sys.stderr,
        )
        return 1
    from ms_deform.port import PortError, verify

    try:
        return verify.run(options)
    except PortError as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
