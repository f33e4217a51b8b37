# SPDX-License-Identifier: Apache-2.0
"""Where the published versions of CANN have what AICPU kernels and prototypes are built with.

CANN 8.1.RC1: ``script/filelist.csv`` of opp, compiler and runtime, as installed. CANN 8.5 and 9:
hicann/opbase v8.5.0 and v9.0.0, ``scripts/package/ops_base/ops_base.xml`` and what it installs; for
the prototypes hicann/metadef and hicann/ge v8.5.0 and v9.0.0, ``cmake/package.cmake`` and
``scripts/package/module/ascend``.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

from aicpu_sdk_builds import HEADERS, OPP_ARCHIVES, Tree

MACHINE = platform.machine()

# The headers, with blanks between, of the SDK's folders.
_FLAT = (
    "cpu_attr_value.h cpu_context.h cpu_kernel.h cpu_kernel_register.h cpu_nodedef_builder.h "
    "cpu_tensor.h cpu_tensor_shape.h cpu_types.h cust_cpu_utils.h"
)
_COMMON = (
    "async_cpu_kernel.h async_event_util.h cpu_context.h cpu_kernel.h cpu_kernel_cache.h "
    "cpu_kernel_register.h cpu_kernel_utils.h cpu_types.h device.h device_cpu_kernel.h "
    "device_sharder.h eigen_threadpool.h eigen_threadpool_embedding.h host_sharder.h "
    "kernel_cache.h node_def_builder.h notification.h session_cache.h sharder.h thread_ctx.h"
)
_PROTO = (
    "attr_value_impl.h cpu_attr_value.h cpu_node_def.h cpu_tensor.h cpu_tensor_shape.h "
    "node_def_impl.h tensor_impl.h tensor_shape_impl.h"
)
_PROTOTYPES = ("graph/operator_reg.h", "register/op_impl_registry.h")
_HOST_LIBRARIES = ("librt2_registry.a", "libexe_graph.so", "libregister.so")


class Published(NamedTuple):
    files: frozenset[str]
    tree: Tree


def published(host: str) -> dict[str, Published]:
    """The versions, as they are installed for a host."""
    system = f"{host}-linux"
    opp = "opp/built-in/op_impl/aicpu/aicpu_kernel"
    return {
        "CANN 9": _split(system, f"{system}/pkg_inc/aicpu_common/context"),
        "CANN 8.5": _split(system, f"{system}/include/aicpu_common/context"),
        "CANN 8.1": _published(
            system,
            {f"{opp}/inc": _FLAT},
            Tree(
                {f"{opp}/inc": HEADERS},
                f"{opp}/lib/Ascend",
                *OPP_ARCHIVES,
                f"{system}/include",
                f"{system}/lib64",
            ),
        ),
    }


def _split(system: str, context: str) -> Published:
    held = {f"{context}/common": _COMMON, f"{context}/cpu_proto": _PROTO}
    wanted = {
        folder: " ".join(name for name in HEADERS.split() if name in names.split())
        for folder, names in held.items()
    }
    libraries = f"{system}/lib64"
    tree = Tree(
        wanted,
        libraries,
        "libaicpu_context.a",
        "libbase_ascend_protobuf.a",
        f"{system}/include",
        libraries,
    )
    return _published(system, held, tree)


def _published(system: str, headers: dict[str, str], tree: Tree) -> Published:
    files = {f"{folder}/{name}" for folder, names in headers.items() for name in names.split()}
    files |= {f"{tree.libraries}/{name}" for name in (tree.context, tree.protobuf)}
    files |= {f"{system}/include/{name}" for name in _PROTOTYPES}
    files |= {f"{system}/lib64/{name}" for name in _HOST_LIBRARIES}
    return Published(frozenset(files), tree)


PUBLISHED = published(MACHINE)
