# SPDX-License-Identifier: Apache-2.0
"""Deformable convolution in this project and elsewhere, on a CPU.

To add one: a class here, and its name in devices.py.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmark.rows import Arrays, Row
from benchmark.side import Call, Side

if TYPE_CHECKING:
    import onnx
    from mindspore import nn

# The tensors that come with a call of a deployed network; the others are its parameters.
MOVING = ("input", "offset", "mask")


class _MindSporeSide(Side):
    modules = ("mindspore",)
    trains = True

    def prepare(self, call: Call, forward: nn.Cell, *arrays: np.ndarray) -> None:
        """Compiles the graph."""
        import mindspore as ms

        from benchmark.networks import Training

        ms.set_context(mode=ms.GRAPH_MODE)
        dtype = getattr(ms, call.dtype)
        self.tensors = [ms.Tensor(array).astype(dtype) for array in arrays]
        self.net = forward
        if call.training:
            grad_output = ms.Tensor(call.arrays.grad_output).astype(dtype)
            self.net = Training(forward, len(arrays), grad_output)
        self.net.compile(*self.tensors)

    def __call__(self) -> None:
        output = self.net(*self.tensors)
        self.outputs = output if isinstance(output, tuple) else (output,)
        for tensor in self.outputs:
            tensor.asnumpy()  # waits; on a CPU it copies nothing

    def results(self) -> list[np.ndarray]:
        halves = self.outputs[0].itemsize < 4  # NumPy has no bfloat16
        tensors = [tensor.float() if halves else tensor for tensor in self.outputs]
        return [tensor.asnumpy() for tensor in tensors]


class MsDeform(_MindSporeSide):
    """This project, as a user calls it in graph mode."""

    def __init__(self, call: Call) -> None:
        from benchmark.networks import Ours

        self.prepare(call, Ours(call.row), *call.arrays[:-1])


class MindSporeBuiltin(_MindSporeSide):
    """MindSpore's own operator: about ten seconds a call."""

    dtypes = ("float32", "float16")
    by_default = False

    def __init__(self, call: Call) -> None:
        from benchmark.networks import Builtin

        arrays = call.arrays
        y, x = arrays.offset[:, 0::2], arrays.offset[:, 1::2]
        packed = np.concatenate((x, y, arrays.mask), axis=1)
        network = Builtin(call.row)
        self.prepare(call, network, arrays.input, packed, arrays.weight, arrays.bias)

    def results(self) -> list[np.ndarray]:
        output, *gradients = super().results()
        if not gradients:
            return [output]
        grad_input, grad_packed, grad_weight, grad_bias = gradients
        x, y, mask = np.split(grad_packed, 3, axis=1)
        offset = np.stack((y, x), axis=2).reshape(len(x), -1, *x.shape[2:])
        return [output, grad_input, offset, grad_weight, grad_bias, mask]


class Torchvision(Side):
    modules = ("torch", "torchvision")
    trains = True

    def __init__(self, call: Call) -> None:
        import torch
        from torchvision.ops import deform_conv2d

        torch.set_num_threads(call.threads)
        dtype = getattr(torch, call.dtype)
        tensors = [torch.from_numpy(array).to(call.device, dtype) for array in call.arrays]
        *tensors, self.grad_output = tensors
        self.tensors = [tensor.requires_grad_(call.training) for tensor in tensors]
        self.row, self.training = call.row, call.training
        self.operator, self.gradients = deform_conv2d, torch.autograd.grad

    def __call__(self) -> None:
        input, offset, weight, bias, mask = self.tensors
        output = self.operator(input, offset, weight, bias, self.row.s, self.row.padding, mask=mask)
        self.outputs = [output]
        if self.training:
            self.outputs += self.gradients(output, self.tensors, self.grad_output)

    def results(self) -> list[np.ndarray]:
        halves = self.outputs[0].itemsize < 4
        tensors = [tensor.detach().cpu() for tensor in self.outputs]
        return [(tensor.float() if halves else tensor).numpy() for tensor in tensors]


class Onnxruntime(Side):
    """DeformConv of opset 22, with its tensors bound so that none is copied."""

    modules = ("onnx", "onnxruntime")
    dtypes = ("float32", "float64", "float16")

    def __init__(self, call: Call) -> None:
        import onnxruntime

        row = call.row
        arrays = Arrays(*(array.astype(call.dtype) for array in call.arrays))
        self.arrays = arrays  # the bound values point into them
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = call.threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            _onnx_model(row, arrays).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        self.binding = self.session.io_binding()
        for name in MOVING:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(getattr(arrays, name))
            self.binding.bind_ortvalue_input(name, value)
        shape = (row.n, row.o, *row.output_size)
        output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, arrays.input.dtype.type)
        self.binding.bind_ortvalue_output("output", output)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def results(self) -> list[np.ndarray]:
        return self.binding.copy_outputs_to_cpu()


def _onnx_model(row: Row, arrays: Arrays) -> onnx.ModelProto:
    from onnx import helper, numpy_helper

    element = helper.np_dtype_to_tensor_dtype(arrays.input.dtype)
    node = helper.make_node(
        "DeformConv",
        ["input", "weight", "offset", "bias", "mask"],
        ["output"],
        kernel_shape=[row.k, row.k],
        pads=[row.padding] * 4,
        strides=[row.s, row.s],
        group=row.g,
        offset_group=row.og,
    )
    inputs = [
        helper.make_tensor_value_info(name, element, getattr(arrays, name).shape) for name in MOVING
    ]
    output = helper.make_tensor_value_info("output", element, (row.n, row.o, *row.output_size))
    constants = [
        numpy_helper.from_array(getattr(arrays, name), name) for name in ("weight", "bias")
    ]
    graph = helper.make_graph([node], "row", inputs, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


class Openvino(Side):
    modules = ("openvino",)
    dtypes = ("float32",)

    def __init__(self, call: Call) -> None:
        import openvino
        from openvino import opset14

        row, arrays = call.row, call.arrays
        self.arrays = arrays  # the request's tensors point into them
        parameters = [
            opset14.parameter(getattr(arrays, name).shape, np.float32, name) for name in MOVING
        ]
        input, offset, mask = parameters
        output = opset14.deformable_convolution(
            input,
            offset,
            opset14.constant(arrays.weight),
            strides=[row.s, row.s],
            pads_begin=[row.padding] * 2,
            pads_end=[row.padding] * 2,
            dilations=[1, 1],
            mask=mask,
            group=row.g,
            deformable_group=row.og,
            bilinear_interpolation_pad=True,
        )
        output = opset14.add(output, opset14.constant(arrays.bias.reshape(1, -1, 1, 1)))
        compiled = openvino.compile_model(
            openvino.Model([output], parameters),
            "CPU",
            {
                "INFERENCE_NUM_THREADS": call.threads,
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self.request = compiled.create_infer_request()
        for index, name in enumerate(MOVING):
            tensor = openvino.Tensor(getattr(arrays, name), shared_memory=True)
            self.request.set_input_tensor(index, tensor)

    def __call__(self) -> None:
        self.request.infer()

    def results(self) -> list[np.ndarray]:
        return [self.request.get_output_tensor().data]


class Ncnn(Side):
    """Takes one image at a time."""

    modules = ("ncnn",)
    dtypes = ("float32",)

    @classmethod
    def unsupported(cls, call: Call) -> str:
        if call.row.g > 1:
            return "has no groups"
        if call.row.og > 1:
            return "has no offset groups"
        return super().unsupported(call)

    def __init__(self, call: Call) -> None:
        import ncnn

        row, arrays = call.row, call.arrays
        layer = {0: row.o, 1: row.k, 3: row.s, 4: row.padding, 5: 1, 6: arrays.weight.size}
        options = " ".join(f"{key}={value}" for key, value in layer.items())
        inputs = "".join(f"Input {name} 0 1 {name}\n" for name in MOVING)
        text = f"7767517\n4 4\n{inputs}DeformableConv2D d 3 1 input offset mask output {options}\n"
        self.net = ncnn.Net()
        self.net.opt.num_threads = call.threads
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(self.net.opt, f"use_{option}", False)
        with TemporaryDirectory() as folder:
            param, model = Path(folder, "row.param"), Path(folder, "row.bin")
            param.write_text(text)
            raw = np.zeros(1, np.float32)  # the mark of weights in float32
            model.write_bytes(raw.tobytes() + arrays.weight.tobytes() + arrays.bias.tobytes())
            if self.net.load_param(str(param)) or self.net.load_model(str(model)):
                raise RuntimeError("cannot load the model")
        # Cloned into the layout that its layers expect, so that no call has to.
        self.images = [
            {name: ncnn.Mat(getattr(arrays, name)[n]).clone() for name in MOVING}
            for n in range(row.n)
        ]

    def __call__(self) -> None:
        self.outputs = []
        for image in self.images:
            extractor = self.net.create_extractor()
            for name, mat in image.items():
                extractor.input(name, mat)
            status, output = extractor.extract("output")
            if status:
                raise RuntimeError(f"ncnn failed with status {status}")
            self.outputs.append(output)

    def results(self) -> list[np.ndarray]:
        return [np.stack([np.array(output) for output in self.outputs])]
