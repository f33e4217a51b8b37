# SPDX-License-Identifier: Apache-2.0
"""The commands of `python -m ms_deform`; those of porting are in port/commands.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ms_deform import doctor
from ms_deform.arguments import call, integers, numbers
from ms_deform.ascend_report import Layer
from ms_deform.install import aicpu_install, aicpu_package, aicpu_sdk, builder, library
from ms_deform.port import commands as port


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
    port.add_convert(commands)
    port.add_verify(commands)
    _add_viz(commands)
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        return _doctor(options)
    if options.command == "convert":
        return port.run_convert(options)
    if options.command == "verify":
        return port.run_verify(options)
    if options.command == "viz":
        return _viz(options)
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
        type=integers(3),
        metavar="C_IN,C_OUT,K",
        help="whether Ascend's AI Core computes the composition of this layer, and why",
    )
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--offset-groups", type=int, default=1)
    parser.add_argument(
        "--size",
        type=integers(2),
        default=(128, 128),
        metavar="H,W",
        help="of the layer's images (default: 128,128)",
    )


def _doctor(options: argparse.Namespace) -> int:
    if options.soc is None and options.layer is None:
        return doctor.main()
    layer = None
    if options.layer is not None:
        layer = Layer(*options.layer, options.groups, options.offset_groups, options.size)
    return doctor.report_ascend(options.soc, layer)


_VIZ_EXAMPLES = """examples:
  python -m ms_deform viz picture.jpg --net net.py:Net --checkpoint net.ckpt -o layers.png
  python -m ms_deform viz picture.jpg --net 'net.py:Net(num_feat=16)' -o net.png \\
      --size 224,224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  python -m ms_deform viz picture.jpg --net net.py:Net -o align.png --layer align --call all
"""


def _add_viz(commands: argparse._SubParsersAction) -> None:
    viz = commands.add_parser(
        "viz",
        help="draw where a network samples an image",
        epilog=_VIZ_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    viz.add_argument("picture", help="an image file")
    port.add_network(viz)
    viz.add_argument("-o", "--output", required=True, metavar="FILE", help="a .png file")
    viz.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="a .ckpt or .safetensors file of MindSpore's (default: the network as it is made)",
    )
    viz.add_argument(
        "--size",
        type=integers(2),
        metavar="H,W",
        help="of the network's input (default: the image's)",
    )
    viz.add_argument("--gray", action="store_true", help="one channel instead of red, green, blue")
    for name in ("--mean", "--std"):
        viz.add_argument(
            name,
            type=numbers,
            metavar="R,G,B",
            help="input = (image - mean) / std, the image in 0 to 1",
        )
    viz.add_argument(
        "--layer",
        action="append",
        metavar="NAME",
        help="draw this layer only; may be given several times (default: all)",
    )
    viz.add_argument(
        "--group",
        type=int,
        help="which offset group, from 0 (default: of each layer that with the longest offsets)",
    )
    viz.add_argument(
        "--call",
        type=call,
        default=-1,
        metavar="N",
        help="which call of a layer that is called several times, from 0, or all (default: last)",
    )


def _viz(options: argparse.Namespace) -> int:
    # They need MindSpore, which `build` and `doctor` can do without.
    from ms_deform.port import PortError, convert
    from ms_deform.viz import command

    arguments = {name: value for name, value in vars(options).items() if name != "command"}
    try:
        return command.run(**{**arguments, "net": convert.import_net(options.net)})
    except (PortError, command.PictureError) as error:
        print(f"viz: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
