// SPDX-License-Identifier: Apache-2.0
// Gradients of input, offset and mask. With grad_column[p, t, c] = sum_o weight[o, c, t] *
// grad_output[o, p], and for each sample the products dot[i] = sum_c grad_column[c] * corner i[c]:
//   grad_mask   = sum_i corner weight[i] * dot[i]
//   grad_offset = mask * slope of the sample, with dot in place of the corner values
//   grad_input[corner i, c] += mask * corner weight[i] * grad_column[c]
//
// The blocks of the images are worked on in waves. Each block's pixels are cut into bands that add
// to slabs of their own, which are added up in order: the result has the same bits on any number of
// threads.
//
// Scratch: for each block of a wave an image slab, `bands` gradient slabs and its share of the
// point gradients (cpu/point_gradients.h), together at most kWaveBytes unless a single block needs
// more; the packed weights; for each thread a tile's grad_output (kTilePixels x outputs) and its
// columns of one tap and block.
#ifndef MS_DEFORM_CPU_BACKWARD_INPUT_H_
#define MS_DEFORM_CPU_BACKWARD_INPUT_H_

#include "cpu/point_gradients.h"
#include "cpu/threads.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

constexpr int64_t kWaveBytes = 54 << 20;
// Pieces of work for threads to share, as far as bands can make them.
constexpr int64_t kPieces = 8;
constexpr int64_t kMostBands = 2;

template <typename Real>
class BackwardInput {
 public:
  explicit BackwardInput(const BackwardInputCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        blocks_(g_),
        loader_(g_, call.dtype, call.inputs.input, blocks_),
        plan_(g_, call.dtype, call.inputs),
        points_(call, blocks_),
        slab_size_(blocks_.widest() * SlabPixels(g_)) {
    const int64_t items = Maximum(1, g_.batch * blocks_.count());
    bands_ = Minimum(kMostBands, CeilDivide(kPieces, items));
    while (bands_ > 1 && ItemBytes() > kWaveBytes) {
      --bands_;
    }
    const int64_t fitting = Minimum(items, Maximum(1, kWaveBytes / ItemBytes()));
    wave_ = CeilDivide(items, CeilDivide(items, fitting));
  }

  void Run() {
    if (!g_.use_mask) {
      const Real zero = 0;
      StoreValues(call_.dtype, &zero, 1, call_.grad_mask, 0);
    }
    if (g_.batch == 0) {
      return;
    }
    const Workspace workspace([this](ArrayPlacer* placer) { Place(placer); });
    blocks_.Fill();
    RunThreads(threads_, [this](Team& team) {
      PackWeights();
      const int64_t items = g_.batch * blocks_.count();
      for (int64_t item = 0; item < items; item += wave_) {
        RunWave(item, Minimum(item + wave_, items), team);
      }
    });
  }

 private:
  // A block of an image in a wave.
  struct Item {
    int64_t image;
    const ChannelBlock* block;
    int64_t slot;  // its place in the wave
    Real* slab;
    Real* grad_slabs;  // [band]
  };

  // What a thread works in.
  struct Memory {
    Real* grad_output;   // [output of the block's groups, kTilePixels]
    Real* grad_columns;  // [pixel, column of the block]
  };

  // A slice's slabs of an image, of which the rows are image rows.
  struct SliceSlabs {
    const Real* image;
    Real* grad_image;
    int64_t row;
  };

  int64_t ItemBytes() const {
    return ((1 + bands_) * slab_size_ + points_.size()) * static_cast<int64_t>(sizeof(Real));
  }

  void Place(ArrayPlacer* placer) {
    blocks_.Place(placer);
    slabs_ = placer->Place<Real>(wave_ * slab_size_);
    grad_slabs_ = placer->Place<Real>(wave_ * bands_ * slab_size_);
    points_.Place(wave_, placer);
    weights_ = placer->Place<Real>(blocks_.packed() * g_.taps * g_.group_out_channels);
    grad_outputs_ = placer->Place<Real>(threads_ * GradOutputSize());
    grad_columns_ = placer->Place<Real>(threads_ * ColumnsSize());
  }

  int64_t GradOutputSize() const { return blocks_.most_outputs() * kTilePixels; }
  int64_t ColumnsSize() const { return kTilePixels * blocks_.widest(); }

  Item ItemAt(int64_t first, int64_t index) const {
    const int64_t slot = index - first;
    return {index / blocks_.count(), &blocks_[index % blocks_.count()], slot,
            slabs_ + slot * slab_size_, grad_slabs_ + slot * bands_ * slab_size_};
  }

  // For each member of a block and each tap a packed matrix, with a row for each output of the
  // group and a column for each column of the member.
  Real* WeightsOf(const ChannelBlock& block, int64_t member, int64_t tap) const {
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return weights_ + (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
                          g_.group_out_channels;
  }

  // Shared out among the threads.
  void PackWeights() const {
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [this](const auto* weight) {
#pragma omp for schedule(dynamic) nowait
      for (int64_t index = 0; index < blocks_.count(); ++index) {
        const ChannelBlock& block = blocks_[index];
        if (HasEmptyColumns(block)) {
          FillZeros(WeightsOf(block, 0, 0), block.packed * g_.taps * g_.group_out_channels);
        }
        for (int64_t member = 0; member < block.members; ++member) {
          VisitRuns<Real>(g_, block, [&](const ChannelRun& run) {
            WithLanes<Real>(run.width,
                            [&](auto lanes) { PackRun<lanes>(weight, block, member, run); });
          });
        }
      }
    });
  }

  template <int kLanes, typename Storage>
  void PackRun(const Storage* weight, const ChannelBlock& block, int64_t member,
               const ChannelRun& run) const {
    for (int64_t c = 0; c < run.width; c += kLanes) {
      const int64_t panel = (run.column + c) / PanelWidth<Real>() * PanelWidth<Real>();
      const int64_t panel_width = PackedPanelWidth<Real>(block.member_columns, panel);
      for (int64_t output = 0; output < g_.group_out_channels; ++output) {
        const int64_t row = (block.group + member) * g_.group_out_channels + output;
        const Matrix<const Storage> from = {
            weight + (row * g_.group_in_channels + run.channel + c) * g_.taps, g_.taps,
            run.width - c, g_.taps};
        const int64_t to =
            panel * g_.group_out_channels + output * panel_width + (run.column + c - panel);
        for (int64_t tap = 0; tap < g_.taps; tap += kLanes) {
          Vector<Real, kLanes> square[kLanes];
          LoadSquare<kLanes, Real>(from.From(0, tap), square);
          for (int64_t t = 0; t < Minimum(kLanes, g_.taps - tap); ++t) {
            StoreVector<Real, kLanes>(WeightsOf(block, member, tap + t) + to, square[t]);
          }
        }
      }
    }
  }

  // Shared out among the threads.
  void RunWave(int64_t first, int64_t end, Team& team) const {
    const int64_t thread = omp_get_thread_num();
#pragma omp for schedule(static) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t y = -1; y < SlabRowsEnd(g_); ++y) {
        const Item item = ItemAt(first, index);
        loader_.LoadRow(item.image, *item.block, y, item.slab);
      }
    }
    team.Wait();
#pragma omp for schedule(dynamic) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t band = 0; band < bands_; ++band) {
        RunBand(
            ItemAt(first, index), band,
            {grad_outputs_ + thread * GradOutputSize(), grad_columns_ + thread * ColumnsSize()});
      }
    }
    team.Wait();
#pragma omp for schedule(static) collapse(2) nowait
    for (int64_t index = first; index < end; ++index) {
      for (int64_t y = 0; y < g_.in_height; ++y) {
        StoreGradRow(ItemAt(first, index), y);
      }
    }
    points_.AddShares(first, end);
    team.Wait();
  }

  void RunBand(const Item& item, int64_t band, const Memory& memory) const {
    const ChannelBlock& block = *item.block;
    Real* grad_slab = item.grad_slabs + band * slab_size_;
    FillZeros(grad_slab, block.pitch * SlabPixels(g_));
    // Columns without a channel stay 0.
    FillZeros(memory.grad_columns, ColumnsSize());
    const int64_t tiles = TilesPerImage(g_);
    Tile tile;
    for (int64_t index = band * tiles / bands_; index < (band + 1) * tiles / bands_; ++index) {
      SetTile(g_, item.image * tiles + index, &tile);
      LoadGradOutput(call_, tile, block, memory.grad_output);
      for (int64_t tap = 0; tap < g_.taps; ++tap) {
        GradColumns(tile, block, tap, memory);
        for (int64_t i = 0; i < block.offset_groups; ++i) {
          const Slice& slice = blocks_.SlicesOf(block)[i];
          const Rows<const Real> columns = {memory.grad_columns + slice.column, block.pitch};
          TapGradients<Real> gradients;
          RunSlice(tile, slice, tap, columns, SlabsOf(item, slice, grad_slab), &gradients);
          points_.Take(tile, slice, tap, item.slot, gradients);
        }
      }
    }
  }

  // grad_columns[pixel, column] of one tap.
  void GradColumns(const Tile& tile, const ChannelBlock& block, int64_t tap,
                   const Memory& memory) const {
    const int64_t outputs = g_.group_out_channels;
    for (int64_t member = 0; member < block.members; ++member) {
      Factor<Real> a;
      a.data = memory.grad_output + member * outputs * kTilePixels;
      a.rows = tile.pixels;
      a.row = 1;
      a.steps = outputs;
      a.step = kTilePixels;
      MultiplyPacked(
          a, PackedRows<Real>{WeightsOf(block, member, tap), outputs, 0}, block.member_columns,
          Rows<Real>{memory.grad_columns + member * block.member_columns, block.pitch}, false);
    }
  }

  SliceSlabs SlabsOf(const Item& item, const Slice& slice, Real* grad_slab) const {
    const int64_t first = slice.column * SlabPixels(g_);
    return {item.slab + first, grad_slab + first, SlabWidth(g_) * slice.pitch};
  }

  // Point gradients of one tap and slice over a tile, and their share of the gradient slab.
  void RunSlice(const Tile& tile, const Slice& slice, int64_t tap, const Rows<const Real>& columns,
                const SliceSlabs& slabs, TapGradients<Real>* gradients) const {
    TapPoints<Real> points;
    TapSamples<Real> samples;
    Real dots[kTilePixels][kCorners];
    plan_.Locate(tile, slice.offset_group, tap, &points);
    plan_.Fold(tile.pixels, points, &samples);
    const Matrix<const Real> grad_columns = {columns.data, columns.row, tile.pixels, slice.pitch};
    WithPitch<Real>(slice.pitch, [&](auto pitch) {
      ScatterTap<pitch>(points, samples, grad_columns, slabs, dots);
    });
    GradPoints(tile.pixels, points, dots, gradients);
  }

  // For each pixel dots[i] = grad_column * corner i of the image, and corner i of grad_image +=
  // weight[i] * grad_column.
  template <int kPitch>
  static void ScatterTap(const TapPoints<Real>& points, const TapSamples<Real>& samples,
                         Matrix<const Real> grad_columns, SliceSlabs slabs,
                         Real dots[kTilePixels][kCorners]) {
    constexpr int kLanes = LanesOfPitch<Real>(kPitch);
    using Values = Vector<Real, kLanes>;
    for (int64_t p = 0; p < grad_columns.rows; ++p) {
      const Real* grad_column = grad_columns.data + p * grad_columns.row;
      const Real* top = slabs.image + int64_t{points.pixel[p]} * kPitch;
      const Real* bottom = top + slabs.row;
      Real* grad_top = slabs.grad_image + int64_t{samples.pixel[p]} * kPitch;
      Real* grad_bottom = grad_top + slabs.row;
      const Real weight[kCorners] = {samples.weight[0][p], samples.weight[1][p],
                                     samples.weight[2][p], samples.weight[3][p]};
      Values sum[kCorners] = {};
#pragma GCC unroll 4
      for (int c = 0; c < kPitch; c += kLanes) {
        const Values grad = LoadVector<Real, kLanes>(grad_column + c);
        sum[0] += grad * LoadVector<Real, kLanes>(top + c);
        sum[1] += grad * LoadVector<Real, kLanes>(top + kPitch + c);
        sum[2] += grad * LoadVector<Real, kLanes>(bottom + c);
        sum[3] += grad * LoadVector<Real, kLanes>(bottom + kPitch + c);
        // The corners are different pixels: all are loaded before the first is stored.
        const Values value[kCorners] = {
            LoadVector<Real, kLanes>(grad_top + c) + weight[0] * grad,
            LoadVector<Real, kLanes>(grad_top + kPitch + c) + weight[1] * grad,
            LoadVector<Real, kLanes>(grad_bottom + c) + weight[2] * grad,
            LoadVector<Real, kLanes>(grad_bottom + kPitch + c) + weight[3] * grad};
        StoreVector<Real, kLanes>(grad_top + c, value[0]);
        StoreVector<Real, kLanes>(grad_top + kPitch + c, value[1]);
        StoreVector<Real, kLanes>(grad_bottom + c, value[2]);
        StoreVector<Real, kLanes>(grad_bottom + kPitch + c, value[3]);
      }
      SumFourRows<Real, kLanes>(sum, dots[p]);
    }
  }

  // Adds up the bands of one row of grad_input.
  void StoreGradRow(const Item& item, int64_t y) const {
    for (int64_t i = 0; i < item.block->offset_groups; ++i) {
      const Slice& slice = blocks_.SlicesOf(*item.block)[i];
      Real* row =
          item.grad_slabs + slice.column * SlabPixels(g_) + SlabPixel(g_, y, 0) * slice.pitch;
      for (int64_t band = 1; band < bands_; ++band) {
        const Real* of_band = row + band * slab_size_;
        for (int64_t j = 0; j < g_.in_width * slice.pitch; ++j) {
          row[j] += of_band[j];
        }
      }
      const int64_t first = (item.image * g_.in_channels + slice.channel) * g_.in_pixels;
      const Matrix<const Real> sums = {row, slice.pitch, g_.in_width, slice.width};
      VisitStorage<Real>(call_.dtype, call_.grad_input, [&](auto* grad_input) {
        using Storage = std::remove_pointer_t<decltype(grad_input)>;
        const Rows<Storage> to = {grad_input + first + y * g_.in_width, g_.in_pixels};
        WithLanes<Real>(slice.pitch, [&](auto lanes) {
          StoreTransposed<lanes>(sums, static_cast<const Real*>(nullptr), to);
        });
      });
    }
  }

  const BackwardInputCall& call_;
  const Geometry& g_;
  int threads_;
  ChannelBlocks<Real> blocks_;
  SlabLoader<Real> loader_;
  Plan<Real> plan_;
  PointGradients<Real> points_;
  int64_t slab_size_;
  int64_t bands_;
  int64_t wave_;                  // blocks of images worked on at a time
  Real* slabs_ = nullptr;         // [item of the wave], each [slice, slab pixel, place]
  Real* grad_slabs_ = nullptr;    // [item of the wave, band], each as slabs_
  Real* weights_ = nullptr;       // [block, member, tap], each packed [output][column]
  Real* grad_outputs_ = nullptr;  // [thread], each [output of the block's groups, kTilePixels]
  Real* grad_columns_ = nullptr;  // [thread], each [pixel, column of the block]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_INPUT_H_
