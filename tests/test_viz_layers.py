# SPDX-License-Identifier: Apache-2.0
"""What the picture of several layers shows: matplotlib's objects, on random records."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ms_deform import viz

pytestmark = pytest.mark.needs("matplotlib")


def random_record(
    layer="layer",
    size=(12, 16),
    groups=1,
    kernel=(3, 3),
    dilation=(1, 1),
    mask=True,
    length=1.0,
    call=0,
) -> viz.Record:
    """A call with padding that keeps the size, on two images."""
    taps = groups * kernel[0] * kernel[1]
    return viz.Record(
        layer=layer,
        input_size=size,
        offset=(length * np.random.randn(2, 2 * taps, *size)).astype(np.float32),
        mask=np.random.rand(2, taps, *size).astype(np.float32) if mask else None,
        kernel_size=kernel,
        stride=(1, 1),
        padding=tuple(step * (side - 1) // 2 for step, side in zip(dilation, kernel)),
        dilation=dilation,
        call=call,
    )


@pytest.fixture(scope="module")
def three():
    """Records of three layers, and their picture."""
    np.random.seed(0)
    records = {
        "small": [random_record("small", (7, 9), length=0.5)],
        "plain": [random_record("plain", (12, 10), kernel=(1, 1), mask=False)],
        "wide": [random_record("wide", (40, 90), groups=4, length=4.0)],
    }
    records["small"][0].mask[0] *= 2
    return records, viz.plot_layers(records)


def named(record: viz.Record) -> dict[str, list[viz.Record]]:
    return {record.layer: [record]}


def quivers(figure):
    from matplotlib.quiver import Quiver

    return [item for ax in figure.axes for item in ax.collections if isinstance(item, Quiver)]


def heat_maps(figure, cmap):
    return [image for ax in figure.axes for image in ax.images if image.get_cmap().name == cmap]


def row_titles(figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def insets(figure):
    return [inset for ax in figure.axes for inset in ax.child_axes]


def points_between_taps(ax, record) -> float:
    """How far apart the taps of a regular grid are in an axes, in points of the figure."""
    ends = ax.transData.transform([(0, 0), (record.dilation[1], 0)])
    return float(np.ptp(ends[:, 0])) * 72 / ax.figure.dpi


def lengths(record: viz.Record, group: int, image: int = 0) -> np.ndarray:
    offset = record.offset[image].astype(float)
    offset = offset.reshape(record.offset_groups, -1, 2, *record.output_size)[group]
    return np.sqrt(offset[:, 0] ** 2 + offset[:, 1] ** 2).mean(0)


def longest(record: viz.Record) -> int:
    return int(np.argmax([lengths(record, g).mean() for g in range(record.offset_groups)]))


def test_each_layer_is_a_row_with_its_name_and_sizes(three):
    _, figure = three
    titles = row_titles(figure)
    assert [title.partition(" ")[0] for title in titles] == ["small", "plain", "wide"]
    assert titles[1] == "plain · kernel 1 x 1 · input 12 x 10"
    notes = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert notes == ["no mask"]


def test_the_picture_is_a_file_as_wide_as_two_readmes(tmp_path):
    from matplotlib.image import imread

    file_name = tmp_path / "layers.png"
    viz.plot_layers(named(random_record()), np.ones((7, 9)), file_name=file_name)
    assert imread(file_name).shape[1] == 1660


def test_lengths_have_one_scale_and_one_colour_bar(three):
    records, figure = three
    largest = max(lengths(calls[0], longest(calls[0])).max() for calls in records.values())
    limits = np.array([image.get_clim() for image in heat_maps(figure, "magma")])
    np.testing.assert_allclose(limits, [[0, largest]] * 3, rtol=1e-5)
    bars = [ax for ax in figure.axes if ax.get_xlabel().startswith("mean length")]
    assert len(bars) == 1
    np.testing.assert_allclose(bars[0].get_xlim(), (0, largest), rtol=1e-5)


def test_masks_have_one_scale_in_maps_and_dots(three):
    records, figure = three
    largest = records["small"][0].mask[0].max()
    dots = [ax.collections[1] for ax in figure.axes if ax.get_title(loc="left")]
    assert dots[1].get_array() is None
    coloured = [dots[0], dots[2], *heat_maps(figure, "viridis")]
    assert len(coloured) == 2 + 2
    for drawn in coloured:
        np.testing.assert_allclose(drawn.get_clim(), (0, largest), rtol=1e-6)


def test_arrows_are_the_mean_offset_of_the_taps_in_one_scale(three):
    records, figure = three
    drawn = quivers(figure)
    assert len(drawn) == 3
    assert len({arrows.scale for arrows in drawn}) == 1
    assert {arrows.scale_units for arrows in drawn} == {"inches"}
    longest_arrows = []
    for arrows, (record,) in zip(drawn, records.values()):
        offset = record.offset[0].reshape(record.offset_groups, -1, 2, *record.output_size)
        y, x = offset[longest(record)].mean(0)
        columns, rows = arrows.X.astype(int), arrows.Y.astype(int)
        np.testing.assert_allclose(arrows.U, x[rows, columns], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(arrows.V, y[rows, columns], rtol=1e-4, atol=1e-5)
        assert 25 <= len(rows) <= 100
        longest_arrows.append(np.hypot(arrows.U, arrows.V).max())
    # The longest arrow of all is as long as there is place for.
    assert max(longest_arrows) / drawn[0].scale == pytest.approx(0.2, rel=1e-4)


def test_arrows_point_down_where_samples_move_down():
    record = random_record()
    record.offset[:, 0::2], record.offset[:, 1::2] = 2, 1
    (arrows,) = viz.plot_offsets(record).collections
    arrows.figure.draw_without_rendering()
    # The last corner of an outline is the first one; of the others most are in the head.
    outline = arrows.get_paths()[0].vertices[:-1]
    # The display's coordinates run upward.
    corners = arrows.get_transform().transform(outline)
    across, up = corners.mean(0) - arrows.get_transform().transform((0, 0))
    assert across > 0 > up
    assert -up / across == pytest.approx(2, rel=0.2)


def test_a_key_says_how_long_an_arrow_is():
    from matplotlib.quiver import QuiverKey

    record = random_record()
    record.offset[:, 0::2], record.offset[:, 1::2] = 0.3, 0.4
    figure = viz.plot_layers(named(record))
    (key,) = [item for ax in figure.axes for item in ax.artists if isinstance(item, QuiverKey)]
    assert pytest.approx(0.5) == key.U
    assert key.text.get_text() == "mean offset of 0.5 px"


def test_nothing_moves_and_no_key_says_how_far():
    from matplotlib.quiver import QuiverKey

    record = random_record(length=0.0)
    figure = viz.plot_layers(named(record))
    figure.draw_without_rendering()
    assert not [item for ax in figure.axes for item in ax.artists if isinstance(item, QuiverKey)]


def test_offsets_of_a_training_that_diverged_are_drawn():
    record = random_record()
    record.offset[0, 3, :4], record.offset[0, 5, 6:] = np.nan, np.inf
    figure = viz.plot_layers({**named(record), **named(random_record("other"))})
    figure.draw_without_rendering()
    assert all(np.isfinite(image.get_clim()).all() for image in heat_maps(figure, "magma"))


def test_the_offset_group_with_the_longest_offsets_is_drawn_and_named():
    record = random_record(groups=8)
    taps = 2 * 9
    record.offset[0, 5 * taps : 6 * taps] *= 2
    figure = viz.plot_layers(named(record))
    (title,) = row_titles(figure)
    assert title.startswith("layer · offset group 5 of 0 to 7 (longest offsets)")
    (shown,) = heat_maps(figure, "magma")
    np.testing.assert_allclose(shown.get_array(), lengths(record, 5), rtol=1e-5)


def test_of_offset_groups_alike_the_first_is_drawn_and_called_no_longest():
    (title,) = row_titles(viz.plot_layers(named(random_record(groups=2, length=0.0))))
    assert title.startswith("layer · offset group 0 of 0 to 1 · ")


@pytest.mark.parametrize("group", (0, 2))
def test_the_offset_group_that_is_asked_for_is_drawn_in_every_panel(group):
    record = random_record(groups=3)
    figure = viz.plot_layers(named(record), image=1, offset_group=group)
    (title,) = row_titles(figure)
    assert title.startswith(f"layer · offset group {group} of 0 to 2 · ")
    (shown,) = heat_maps(figure, "magma")
    np.testing.assert_allclose(shown.get_array(), lengths(record, group, 1), rtol=1e-5)
    (shown,) = heat_maps(figure, "viridis")
    masks = record.mask[1].reshape(3, 9, *record.output_size)[group]
    np.testing.assert_allclose(shown.get_array(), masks.mean(0), rtol=1e-5)
    dots = figure.axes[0].collections[1]
    pixels = [(3, 4), (3, 12), (9, 4), (9, 12)]
    points = viz.sampling_points(record, pixels, 1)[:, group].reshape(-1, 2)
    np.testing.assert_allclose(dots.get_offsets(), points[:, ::-1], rtol=1e-5)


def test_offset_groups_and_images_that_are_not_there_are_refused():
    records = named(random_record(groups=3))
    with pytest.raises(ValueError, match=r"'offset_group' must be .* 'layer', 0 to 2, got 3"):
        viz.plot_layers(records, offset_group=3)
    with pytest.raises(ValueError, match=r"'image' must be .* 'layer', 0 to 1, got 2"):
        viz.plot_layers(records, image=2)


def repeated() -> dict[str, list[viz.Record]]:
    return {"layer": [random_record(call=call) for call in range(3)], "unused": []}


@pytest.mark.parametrize("call, drawn", ((-1, [2]), (0, [0]), (1, [1]), ("all", [0, 1, 2])))
def test_any_call_of_a_layer_can_be_had_and_all_of_them(call, drawn):
    records = repeated()
    figure = viz.plot_layers(records, call=call)
    titles = row_titles(figure)
    assert len(titles) == len(drawn)
    for title, number, image in zip(titles, drawn, heat_maps(figure, "magma")):
        assert title.startswith(f"layer · call {number} of 0 to 2 · ")
        expected = lengths(records["layer"][number], 0)
        np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)


@pytest.mark.parametrize("call", (3, -4, "first"))
def test_calls_that_were_not_made_are_refused(call):
    match = rf"'call' must be \"all\" or one of the 3 calls of layer 'layer', -3 to 2, got '?{call}"
    with pytest.raises(ValueError, match=match):
        viz.plot_layers(repeated(), call=call)


def test_no_records_no_picture():
    with pytest.raises(ValueError, match="'records' holds no call"):
        viz.plot_layers({"layer": []})


def test_more_rows_than_a_picture_holds_are_refused():
    records = {"layer": [random_record(size=(1, 1)) for _ in range(65)]}
    with pytest.raises(ValueError, match="ask for 65 rows, expected at most 64"):
        viz.plot_layers(records, call="all")


@pytest.mark.parametrize(
    "size, kernel, dilation, merges",
    (
        ((7, 9), (3, 3), (1, 1), False),
        ((16, 16), (7, 7), (1, 1), False),
        ((40, 10), (3, 3), (1, 1), True),
        ((64, 80), (3, 3), (1, 1), True),
        ((64, 80), (7, 7), (1, 1), True),
        ((64, 80), (1, 1), (1, 1), True),
        ((64, 80), (3, 3), (8, 8), False),
        ((64, 80), (1, 3), (1, 8), False),
    ),
)
def test_taps_that_would_merge_are_shown_larger_beside_the_panel(size, kernel, dilation, merges):
    record = random_record(size=size, kernel=kernel, dilation=dilation)
    figure = viz.plot_layers(named(record))
    figure.draw_without_rendering()
    assert (points_between_taps(figure.axes[0], record) < 6) == merges
    assert len(insets(figure)) == merges
    for inset in insets(figure):
        assert points_between_taps(inset, record) > 2 * points_between_taps(figure.axes[0], record)
        samples, place, offsets = (
            ax.get_window_extent() for ax in (figure.axes[0], inset, figure.axes[1])
        )
        assert samples.x1 < place.x0 and place.x1 < offsets.x0


@pytest.mark.parametrize("length", (0.0, 0.1, 1.0))
def test_the_inset_holds_all_samples_of_the_first_output_pixel(length):
    record = random_record(size=(64, 80), length=length)
    (inset,) = insets(viz.plot_layers(named(record)))
    points = viz.sampling_points(record, [(16, 20)])[0, 0]
    (left, right), (bottom, top) = inset.get_xlim(), inset.get_ylim()
    assert np.all((left < points[:, 1]) & (points[:, 1] < right))
    assert np.all((top < points[:, 0]) & (points[:, 0] < bottom))


def test_taps_stay_apart_in_the_inset_however_far_the_samples():
    record = random_record(size=(64, 80), length=30.0)
    figure = viz.plot_layers(named(record))
    figure.draw_without_rendering()
    (inset,) = insets(figure)
    assert points_between_taps(inset, record) > 11.9


@pytest.mark.parametrize("pixel", ((1, 2), (60, 3), (5, 77), (62, 78)))
def test_alone_the_inset_is_in_the_corner_far_from_what_it_shows(pixel):
    record = random_record(size=(64, 80), length=0.1)
    ax = viz.plot_sampling(record, [pixel], np.zeros((8, 8)))
    ax.figure.draw_without_rendering()
    (inset,) = ax.child_axes
    box, frame = inset.get_window_extent(), ax.get_window_extent()
    assert frame.x0 <= box.x0 and box.x1 <= frame.x1
    assert frame.y0 <= box.y0 and box.y1 <= frame.y1
    x, y = ax.transData.transform(pixel[::-1])
    assert not box.contains(x, y)
    assert inset.images[0].get_array().shape == (8, 8)


@pytest.mark.parametrize("seed", range(2))
def test_panels_lie_apart_in_the_picture(seed):
    random = np.random.default_rng(seed)
    records = {
        str(i): [random_record(str(i), tuple(random.integers(1, 90, 2)), mask=i % 2 > 0)]
        for i in range(4)
    }
    figure = viz.plot_layers(records)
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in (*figure.axes, *insets(figure))]
    for one, other in combinations(boxes, 2):
        apart = one.x1 < other.x0 or other.x1 < one.x0 or one.y1 < other.y0 or other.y1 < one.y0
        assert apart, (one, other)
    for box in boxes:
        assert box.x0 > 0 and box.x1 < figure.bbox.x1
        assert box.y0 > 0 and box.y1 < figure.bbox.y1
