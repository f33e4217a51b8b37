# SPDX-License-Identifier: Apache-2.0
"""Train a small deformable network and its plain twin on rotated, scaled and shifted digits.

Prints loss and accuracy of both; writes the deformable network's checkpoint and a picture of where
its last layer samples. Runs in graph mode on the CPU, in less than two minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from scipy.ndimage import affine_transform, uniform_filter
from sklearn.datasets import load_digits
from tqdm import tqdm

from ms_deform import DeformConv2d

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

CLASSES = 10
CANVAS = 24  # pixels; the digits come as 8 x 8
MAX_ROTATION = 45.0  # degrees, either way
SCALES = (1.2, 2.3)  # a digit fills 10 to 18 pixels of the canvas
BATCH_SIZE = 64
LEARNING_RATE = 0.01
TEST_PLACEMENTS = 3  # of each held-out digit, for a steadier test result
QUICK_IMAGES = 512
DIGITS_SHOWN = (0, 2, 3, 5, 8)
TAPS = 9  # positions of a 3 x 3 kernel
TOP_STRIDE = 4  # canvas pixels from one position of the last layer's input to the next


@dataclass(frozen=True)
class Digits:
    """Images [N, 8, 8] in 0..1 and their labels [N]."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Result:
    """What one network reached, and how long its training took."""

    name: str
    parameters: int
    first_loss: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


def load_split(rng: np.random.Generator) -> tuple[Digits, Digits]:
    """The digits in random order: four fifths to train on, one fifth held out."""
    digits = load_digits()
    order = rng.permutation(len(digits.target))
    images = (digits.images[order] / digits.images.max()).astype(np.float32)
    labels = digits.target[order].astype(np.int32)
    held_out = len(order) // 5
    return (
        Digits(images[held_out:], labels[held_out:]),
        Digits(images[:held_out], labels[:held_out]),
    )


def place(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One digit on the canvas, rotated, scaled and shifted at random but still whole."""
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    scale = np.exp(rng.uniform(*np.log(SCALES)))
    free = (CANVAS - scale * len(image)) / 2
    centre = (CANVAS - 1) / 2 + rng.uniform(-free, free, size=2)
    cos, sin = np.cos(angle), np.sin(angle)
    canvas_to_image = np.array([[cos, -sin], [sin, cos]]) / scale
    offset = (len(image) - 1) / 2 - canvas_to_image @ centre
    return affine_transform(image, canvas_to_image, offset, (CANVAS, CANVAS), order=1)


def transformed(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fresh random placement of every image: [N, 1, CANVAS, CANVAS]."""
    return np.stack([place(image, rng) for image in images])[:, None]


def conv3x3(in_channels: int, out_channels: int, stride: int, **init: str) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels, out_channels, 3, stride, pad_mode="pad", padding=1, has_bias=True, **init
    )


class DeformBlock(nn.Cell):
    """A 3 x 3 deformable convolution whose offsets and mask come from a plain convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        # All zeros: training starts from the regular grid.
        self.offset_and_mask = conv3x3(
            in_channels, 3 * TAPS, stride, weight_init="zeros", bias_init="zeros"
        )
        self.deform = DeformConv2d(in_channels, out_channels, 3, stride, padding=1)

    def construct(self, features: Tensor) -> Tensor:
        offset, mask = self.sampling(features)
        return self.deform(features, offset, mask)

    def sampling(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [N, 2 * TAPS, Ho, Wo], (y, x) for each tap, and mask [N, TAPS, Ho, Wo]."""
        channels = self.offset_and_mask(features)
        return channels[:, : 2 * TAPS], ops.sigmoid(channels[:, 2 * TAPS :])


class DigitNet(nn.Cell):
    """Three convolutions, an average over all positions, a classifier."""

    def __init__(self, conv: Callable[[int, int, int], nn.Cell]) -> None:
        super().__init__()
        self.stem = nn.SequentialCell(conv3x3(1, 8, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.SequentialCell(conv(8, 16, 2), nn.BatchNorm2d(16), nn.ReLU())
        self.top = nn.SequentialCell(conv(16, 24, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.classifier = nn.Dense(24, CLASSES)

    def construct(self, images: Tensor) -> Tensor:
        features = self.top(self.middle(self.stem(images)))
        return self.classifier(features.mean((2, 3)))


class TrainStep(nn.Cell):
    """One graph: forward, backward and update; gives the loss and the logits."""

    def __init__(self, net: nn.Cell, optimizer: nn.Optimizer) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.optimizer = optimizer
        self.gradient = ms.value_and_grad(self.forward, None, optimizer.parameters, has_aux=True)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(images)
        return ops.cross_entropy(logits, labels), logits

    def construct(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        (loss, logits), gradients = self.gradient(images, labels)
        self.optimizer(gradients)
        return loss, logits


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


def train(net: nn.Cell, name: str, digits: Digits, epochs: int, seed: int) -> np.ndarray:
    """Train, and give the mean (loss, accuracy) of every epoch: [epochs, 2]."""
    rng = np.random.default_rng(seed)
    steps = len(digits.labels) // BATCH_SIZE
    rates = nn.cosine_decay_lr(0.0, LEARNING_RATE, epochs * steps, steps, epochs)
    step = TrainStep(net, nn.Adam(net.trainable_params(), rates)).set_train()
    history = np.zeros((epochs, steps, 2))
    with tqdm(total=epochs * steps, desc=f"{name:10}", unit="step") as progress:
        for epoch in range(epochs):
            images = transformed(digits.images, rng)
            order = rng.permutation(len(images))
            for i in range(steps):
                batch = order[i * BATCH_SIZE : (i + 1) * BATCH_SIZE]
                labels = digits.labels[batch]
                loss, logits = step(Tensor(images[batch]), Tensor(labels))
                history[epoch, i] = loss.asnumpy(), accuracy(logits.asnumpy(), labels)
                loss_now, accuracy_now = history[epoch, : i + 1].mean(axis=0)
                progress.set_postfix(
                    epoch=f"{epoch + 1}/{epochs}",
                    loss=f"{loss_now:.3f}",
                    accuracy=f"{accuracy_now:.1%}",
                    refresh=False,
                )
                progress.update()
    return history.mean(axis=1)


def evaluate(net: nn.Cell, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy over a whole set."""
    net.set_train(False)
    logits = net(Tensor(images))
    loss = ops.cross_entropy(logits, Tensor(labels))
    return float(loss.asnumpy()), accuracy(logits.asnumpy(), labels)


def train_and_evaluate(
    net: nn.Cell, name: str, train_set: Digits, test_set: Digits, epochs: int, seed: int
) -> Result:
    start = time.perf_counter()
    history = train(net, name, train_set, epochs, seed)
    seconds = time.perf_counter() - start
    parameters = sum(parameter.size for parameter in net.trainable_params())
    test_loss, test_accuracy = evaluate(net, test_set.images, test_set.labels)
    return Result(name, parameters, history[0, 0], *history[-1], test_loss, test_accuracy, seconds)


def table(results: list[Result]) -> str:
    """Both networks side by side; the two train losses are those of the first and last epoch."""
    lines = [f"{'network':10}  parameters  train loss      accuracy  test loss  accuracy  seconds"]
    lines += [
        f"{r.name:10}  {r.parameters:10}  {r.first_loss:.3f} -> {r.train_loss:.3f}  "
        f"{r.train_accuracy:8.1%}  {r.test_loss:9.3f}  {r.test_accuracy:8.1%}  {r.seconds:7.0f}"
        for r in results
    ]
    return "\n".join(lines)


def grid_points(shape: tuple[int, int]) -> np.ndarray:
    """Where the last layer's taps lie without offsets, in canvas pixels: [TAPS, 2, Ho, Wo]."""
    taps = np.stack(np.divmod(np.arange(TAPS), 3), axis=1) - 1
    return TOP_STRIDE * (taps[:, :, None, None] + np.indices(shape))


def positions_on_ink(image: np.ndarray) -> list[np.ndarray]:
    """The two output positions with most ink around them that are not neighbours."""
    ink = uniform_filter(image, size=TOP_STRIDE)[::TOP_STRIDE, ::TOP_STRIDE]
    order = np.stack(np.unravel_index(np.argsort(-ink, axis=None), ink.shape), axis=1)
    distant = np.abs(order - order[0]).max(axis=1) > 1
    return [order[0], order[distant][0]]


def draw_samples(
    axes: Axes, centre: np.ndarray, points: np.ndarray, **colour: object
) -> PathCollection:
    """The taps [TAPS, 2] of one output position, tied to its centre."""
    for y, x in points:
        axes.plot([centre[1], x], [centre[0], y], color="0.3", linewidth=0.8, zorder=2)
    axes.plot(centre[1], centre[0], "s", color="black", markersize=9, zorder=3)
    return axes.scatter(
        points[:, 1], points[:, 0], s=60, linewidth=0.9, edgecolor="black", zorder=4, **colour
    )


def draw_picture(net: DigitNet, digits: Digits, path: Path) -> None:
    """Above, the taps of a plain convolution; below, those of the trained deformable one."""
    # The largest placement of each digit is the most legible.
    ink = digits.images.sum(axis=(1, 2, 3))
    shown = [int(np.argmax(ink * (digits.labels == label))) for label in DIGITS_SHOWN]
    images = digits.images[shown]
    features = net.middle(net.stem(Tensor(images)))
    offset, mask = (tensor.asnumpy() for tensor in net.top[0].sampling(features))
    grid = grid_points(offset.shape[2:])
    moved = grid + TOP_STRIDE * offset.reshape(len(images), *grid.shape)

    figure, panels = plt.subplots(2, len(images), figsize=(12, 5.2), dpi=100)
    figure.subplots_adjust(0.03, 0.06, 0.92, 0.92, wspace=0.03, hspace=0)
    for i, (plain, deformable) in enumerate(panels.T):
        for axes in (plain, deformable):
            axes.imshow(images[i, 0], cmap="gray_r", vmin=0, vmax=1.6)
            axes.set(xlim=(-4, CANVAS + 3), ylim=(CANVAS + 3, -4), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.add_patch(plt.Rectangle((-0.5, -0.5), CANVAS, CANVAS, fill=False, color="0.7"))
        for y, x in positions_on_ink(images[i, 0]):
            centre = TOP_STRIDE * np.array([y, x])
            draw_samples(plain, centre, grid[..., y, x], color="white")
            weights = {"c": mask[i, :, y, x], "cmap": "plasma", "vmin": 0, "vmax": 1}
            samples = draw_samples(deformable, centre, moved[i, ..., y, x], **weights)
    panels[0, 0].set_ylabel("plain 3 x 3 grid", fontsize=13)
    panels[1, 0].set_ylabel("deformable, trained", fontsize=13)
    figure.suptitle(
        "Where the last layer samples, for two of its output positions (squares)", fontsize=16
    )
    caption = (
        "Held-out digits, rotated, scaled and shifted. "
        "Grey frame: the image. Lines that leave a panel lead to samples that count zero."
    )
    figure.text(0.475, 0.025, caption, ha="center", fontsize=11, color="0.3")
    bar = figure.colorbar(samples, cax=figure.add_axes((0.93, 0.1, 0.014, 0.35)))
    bar.set_label("mask: weight of the sample", fontsize=11)
    figure.savefig(path)
    plt.close(figure)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few short epochs, to see it run")
    parser.add_argument("--epochs", type=int, help="default: 20, or 6 with --quick")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.epochs is None:
        arguments.epochs = 6 if arguments.quick else 20
    if arguments.epochs < 1:
        parser.error("--epochs must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    arguments.output.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(arguments.seed)
    train_set, held_out = load_split(rng)
    if arguments.quick:
        train_set = Digits(train_set.images[:QUICK_IMAGES], train_set.labels[:QUICK_IMAGES])
    test_set = Digits(
        transformed(np.tile(held_out.images, (TEST_PLACEMENTS, 1, 1)), rng),
        np.tile(held_out.labels, TEST_PLACEMENTS),
    )

    results = []
    for name, conv in (("plain", conv3x3), ("deformable", DeformBlock)):
        ms.set_seed(arguments.seed)
        net = DigitNet(conv)
        results.append(
            train_and_evaluate(net, name, train_set, test_set, arguments.epochs, arguments.seed)
        )
    print(table(results))

    checkpoint = arguments.output / "deformable.ckpt"
    picture = arguments.output / "sampling.png"
    ms.save_checkpoint(net, str(checkpoint))
    draw_picture(net, test_set, picture)
    print(f"checkpoint: {checkpoint}\npicture:    {picture}")


if __name__ == "__main__":
    main()
