// SPDX-License-Identifier: Apache-2.0
// Gradients of input, offset and mask. With grad_column[p, t, c] = sum_o weight[o, c, t] *
// grad_output[o, p], and for each sample the products dot[i] = sum_c grad_column[c] * corner i[c]:
//   grad_mask   = sum_i corner weight[i] * dot[i]
//   grad_offset = mask * slope of the sample, with dot in place of the corner values
//   grad_input[corner i, c] += mask * corner weight[i] * grad_column[c]
//
// The blocks of the images are worked on in waves. Each block's pixels are cut into bands that add
// to slabs of their own, which are added up in order. One thread works on a band where there are
// enough of them for all. Otherwise all threads work on all bands in phases: of a phase, each unit
// of work makes the gradients of some columns, and in the phase after it each row of a gradient
// slab takes what belongs to it, in the order of the units. The sums have the same order, and the
// result the same bits, on any number of threads.
//
// Scratch: for each block of a wave an image slab, `bands` gradient slabs and its share of the
// point gradients (cpu/point_gradients.h), together at most kWaveBytes unless a single block needs
// more; the packed weights; for each thread a tile's grad_output (kTilePixels x outputs) and its
// columns of a block (kColumnBytes), and for phases 2 * kThreadUnits units (the columns of
// kUnitTaps taps and their samples).
#ifndef MS_DEFORM_CPU_BACKWARD_INPUT_H_
#define MS_DEFORM_CPU_BACKWARD_INPUT_H_

#include "cpu/point_gradients.h"
#include "cpu/scatter.h"

namespace ms_deform {
namespace MS_DEFORM_ISA {

constexpr int64_t kWaveBytes = 54 << 20;
// Tiles, at least, where pixels allow: there are units of work for more threads.
constexpr int64_t kTiles = 32;
// Bands of all blocks, at least, as far as kMostBands can make them.
constexpr int64_t kBands = 8;
constexpr int64_t kMostBands = 2;
// Of a unit: more of them load grad_output less often, fewer make the threads end at one time.
constexpr int64_t kUnitTaps = 3;
// Units of a phase for each thread.
constexpr int64_t kThreadUnits = 4;
// Pieces that the rows of a gradient slab are cut into for phases.
constexpr int64_t kRowPieces = 48;

template <typename Real>
class BackwardInput {
 public:
  explicit BackwardInput(const BackwardInputCall& call)
      : call_(call),
        g_(call.geometry),
        threads_(ChooseThreads(MultiplyAdds(g_))),
        tiles_(g_, kTiles),
        blocks_(g_),
        loader_(g_, call.dtype, call.inputs.input, blocks_),
        plan_(g_, call.dtype, call.inputs),
        points_(call, blocks_),
        slab_size_(blocks_.widest() * SlabPixels(g_)) {
    const int64_t items = Maximum(1, g_.batch * blocks_.count());
    bands_ = Minimum(kMostBands, CeilDivide(kBands, items));
    while (bands_ > 1 && ItemBytes() > kWaveBytes) {
      --bands_;
    }
    const int64_t fitting = Minimum(items, Maximum(1, kWaveBytes / ItemBytes()));
    wave_ = CeilDivide(items, CeilDivide(items, fitting));
    const bool phases = !EnoughBands(wave_) || !EnoughBands(items % wave_);
    units_ = phases ? threads_ * kThreadUnits : 0;
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
    RunThreads(threads_, [this](Worker& worker) {
      PackWeights(&worker);
      const int64_t items = g_.batch * blocks_.count();
      for (int64_t item = 0; item < items; item += wave_) {
        RunWave({item, Minimum(item + wave_, items)}, &worker);
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
    Real* grad_columns;  // [tap of the block, pixel, column of the block]
  };

  // The blocks of images, numbered through, that are worked on at a time.
  struct Wave {
    int64_t first;
    int64_t end;
  };

  // The share of a band: some tiles of an item.
  struct Band {
    Item item;
    Real* grad_slab;
    int64_t first_tile;  // of the image
    int64_t tiles;
  };

  // Where one tap of a slice scatters the gradients of its columns.
  struct TapScatter {
    TapSamples<Real> samples;
    SlabRange corners;
  };

  // What a unit of a phase leaves behind.
  struct Unit {
    Real* grad_columns;    // [tap of the unit, pixel, column of the block]
    TapScatter* scatters;  // [tap of the unit, slice]
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
    grad_columns_ = placer->Place<Real>(threads_ * blocks_.columns());
    unit_columns_ = placer->Place<Real>(2 * units_ * UnitSize());
    scatters_ = placer->Place<TapScatter>(2 * units_ * kUnitTaps * blocks_.most_slices());
  }

  // Whether one thread for each slice of the bands of so many items keeps all threads busy.
  bool EnoughBands(int64_t items) const {
    const int64_t pieces = items * bands_ * blocks_.most_slices();
    return pieces % threads_ == 0 || pieces >= 4 * threads_;
  }

  int64_t GradOutputSize() const { return blocks_.most_outputs() * kTilePixels; }
  // Of a tile and one tap.
  static int64_t TapColumns(const ChannelBlock& block) { return kTilePixels * block.pitch; }
  int64_t UnitSize() const { return kUnitTaps * kTilePixels * blocks_.widest(); }

  Item ItemAt(const Wave& wave, int64_t index) const {
    const int64_t slot = index - wave.first;
    return {index / blocks_.count(), &blocks_[index % blocks_.count()], slot,
            slabs_ + slot * slab_size_, grad_slabs_ + slot * bands_ * slab_size_};
  }

  int64_t BandsOf(const Wave& wave) const { return (wave.end - wave.first) * bands_; }

  Band BandAt(const Wave& wave, int64_t index) const {
    const Item item = ItemAt(wave, wave.first + index / bands_);
    const int64_t band = index % bands_;
    const int64_t tiles = tiles_.per_image();
    const int64_t first = band * tiles / bands_;
    return {item, item.grad_slabs + band * slab_size_, first, (band + 1) * tiles / bands_ - first};
  }

  // For each member of a block and each tap a packed matrix, with a row for each output of the
  // group and a column for each column of the member.
  Real* WeightsOf(const ChannelBlock& block, int64_t member, int64_t tap) const {
    const int64_t columns = PaddedColumns<Real>(block.member_columns);
    return weights_ + (block.packed_before * g_.taps + (member * g_.taps + tap) * columns) *
                          g_.group_out_channels;
  }

  // A piece packs a block's weights of one output of each group.
  void PackWeights(Worker* worker) const {
    const int64_t outputs = g_.group_out_channels;
    VisitStorage<Real>(call_.dtype, call_.inputs.weight, [&](const auto* weight) {
      worker->ShareShort(blocks_.count() * outputs, [&](int64_t piece) {
        const ChannelBlock& block = blocks_[piece / outputs];
        for (int64_t member = 0; member < block.members; ++member) {
          PackOutput(weight, block, member, piece % outputs);
        }
      });
    });
  }

  template <typename Storage>
  void PackOutput(const Storage* weight, const ChannelBlock& block, int64_t member,
                  int64_t output) const {
    if (HasEmptyColumns(block)) {
      for (int64_t column = 0; column < block.member_columns; column += PanelWidth<Real>()) {
        for (int64_t tap = 0; tap < g_.taps; ++tap) {
          FillZeros(PanelRow(block, member, tap, output, column),
                    PackedPanelWidth<Real>(block.member_columns, column));
        }
      }
    }
    const int64_t row = (block.group + member) * g_.group_out_channels + output;
    VisitRuns<Real>(g_, block, [&](const ChannelRun& run) {
      const Storage* of_run = weight + (row * g_.group_in_channels + run.channel) * g_.taps;
      if (g_.taps == 1) {
        return PackRow(of_run, run.width, block, member, output, run.column);
      }
      const Matrix<const Storage> from = {of_run, g_.taps, run.width, g_.taps};
      // Half a vector where a square of full ones has more rows than there are taps.
      const int64_t width = g_.taps < Lanes<Real>() ? HalfLanes<Real>() : run.width;
      WithLanes<Real>(Minimum(width, run.width),
                      [&](auto lanes) { PackRun<lanes>(from, block, member, output, run.column); });
    });
  }

  // Of a kernel with one tap: there is nothing to transpose.
  template <typename Storage>
  void PackRow(const Storage* from, int64_t width, const ChannelBlock& block, int64_t member,
               int64_t output, int64_t column) const {
    for (int64_t c = 0; c < width; ++c) {
      const int64_t panel = (column + c) / PanelWidth<Real>() * PanelWidth<Real>();
      PanelRow(block, member, 0, output, panel)[column + c - panel] = Load(from[c]);
    }
  }

  // from: [channel, tap]
  template <int kLanes, typename Storage>
  void PackRun(const Matrix<const Storage>& from, const ChannelBlock& block, int64_t member,
               int64_t output, int64_t column) const {
    const int64_t of_tap = PaddedColumns<Real>(block.member_columns) * g_.group_out_channels;
    for (int64_t c = 0; c < from.rows; c += kLanes) {
      const int64_t panel = (column + c) / PanelWidth<Real>() * PanelWidth<Real>();
      Real* to = PanelRow(block, member, 0, output, panel) + (column + c - panel);
      for (int64_t first = 0; first < g_.taps; first += kLanes) {
        // The last square repeats taps of the one before rather than be a part of one.
        const int64_t tap = Maximum(0, Minimum(first, g_.taps - kLanes));
        Vector<Real, kLanes> square[kLanes];
        LoadSquare<kLanes, Real>(from.From(c, tap), square);
        for (int64_t t = 0; t < Minimum(kLanes, g_.taps); ++t) {
          StoreVector<Real, kLanes>(to + (tap + t) * of_tap, square[t]);
        }
      }
    }
  }

  // The part of an output's packed row that lies in a panel.
  Real* PanelRow(const ChannelBlock& block, int64_t member, int64_t tap, int64_t output,
                 int64_t panel) const {
    return WeightsOf(block, member, tap) + panel * g_.group_out_channels +
           output * PackedPanelWidth<Real>(block.member_columns, panel);
  }

  void RunWave(const Wave& wave, Worker* worker) const {
    LoadRows(wave, worker);
    worker->Wait();
    if (EnoughBands(wave.end - wave.first)) {
      RunBands(wave, worker);
    } else {
      RunPhases(wave, worker);
    }
    StoreGradRows(wave, worker);
    points_.AddShares(wave.first, wave.end, worker);
    worker->Wait();
  }

  // Loads the image slabs, and clears the gradient slabs.
  void LoadRows(const Wave& wave, Worker* worker) const {
    const int64_t rows = SlabRows(g_);
    worker->ShareShort((wave.end - wave.first) * rows, [&](int64_t piece) {
      const Item item = ItemAt(wave, wave.first + piece / rows);
      loader_.LoadRow(item.image, *item.block, piece % rows - 1, item.slab);
      const int64_t row = SlabWidth(g_) * item.block->pitch;
      for (int64_t band = 0; band < bands_; ++band) {
        FillZeros(item.grad_slabs + band * slab_size_ + piece % rows * row, row);
      }
    });
  }

  // A piece is one slice of a band.
  void RunBands(const Wave& wave, Worker* worker) const {
    const Memory memory = MemoryOf(worker);
    const int64_t slices = blocks_.most_slices();
    worker->ShareRuns(BandsOf(wave) * slices, {slices, slices}, [&](const PieceRun& run) {
      const int64_t first = run.first % slices;
      RunBand(BandAt(wave, run.first / slices), {first, first + run.end - run.first}, memory);
    });
    worker->Wait();
  }

  Memory MemoryOf(const Worker* worker) const {
    return {grad_outputs_ + worker->thread() * GradOutputSize(),
            grad_columns_ + worker->thread() * blocks_.columns()};
  }

  void RunBand(const Band& band, const PieceRun& slices, const Memory& memory) const {
    const ChannelBlock& block = *band.item.block;
    const PieceRun run = {slices.first, Minimum(slices.end, block.offset_groups)};
    if (run.first >= run.end) {
      return;
    }
    // Columns without a channel stay 0.
    FillZeros(memory.grad_columns, block.block_taps * TapColumns(block));
    Tile tile;
    for (int64_t index = 0; index < band.tiles; ++index) {
      SetTileOf(band, index, &tile);
      LoadGradOutput(call_, tile, block, {0, g_.group_out_channels}, memory.grad_output);
      for (int64_t tap = 0; tap < g_.taps; tap += block.block_taps) {
        const TapRun taps = {tap, Minimum(block.block_taps, g_.taps - tap)};
        GradColumns(tile, block, run, taps, memory);
        VisitSlices(tile, block, run, taps, memory.grad_columns,
                    [&](int64_t i, int64_t t, auto pitch, const Matrix<const Real>& columns) {
                      TapPoints<Real> points;
                      TapSamples<Real> samples;
                      RunSlice<pitch, true>(tile, band, i, tap + t, columns, &points, &samples);
                    });
      }
    }
  }

  // In each phase the rows of the gradient slabs take what the units of the phase before made, and
  // other units are made.
  void RunPhases(const Wave& wave, Worker* worker) const {
    const int64_t units = StepsOfBand() * BandsOf(wave);
    const int64_t phases = CeilDivide(units, units_);
    for (int64_t phase = 0; phase <= phases; ++phase) {
      if (phase > 0) {
        ScatterUnits(wave, phase - 1, worker);
      }
      if (phase < phases) {
        MakeUnits(wave, phase, worker);
      }
      worker->Wait();
    }
  }

  int64_t UnitsOfTile() const { return CeilDivide(g_.taps, kUnitTaps); }
  // Of the longest band.
  int64_t StepsOfBand() const { return CeilDivide(tiles_.per_image(), bands_) * UnitsOfTile(); }

  // The memory of a unit; phases take turns with two halves of it.
  Unit UnitAt(int64_t phase, int64_t index) const {
    const int64_t slot = phase % 2 * units_ + index;
    return {unit_columns_ + slot * UnitSize(),
            scatters_ + slot * kUnitTaps * blocks_.most_slices()};
  }

  // Units are numbered through the bands first, so that a phase has some of every band.
  void MakeUnits(const Wave& wave, int64_t phase, Worker* worker) const {
    const int64_t bands = BandsOf(wave);
    const Memory memory = MemoryOf(worker);
    worker->Share(units_, [&](int64_t index) {
      const int64_t unit = phase * units_ + index;
      MakeUnit(BandAt(wave, unit % bands), unit / bands, UnitAt(phase, index), memory);
    });
  }

  // The taps of a tile that a step of a band has; none after its end.
  TapRun TapsOfStep(const Band& band, int64_t step) const {
    const int64_t first = step % UnitsOfTile() * kUnitTaps;
    const bool exists = step / UnitsOfTile() < band.tiles;
    return {first, exists ? Minimum(kUnitTaps, g_.taps - first) : 0};
  }

  void MakeUnit(const Band& band, int64_t step, const Unit& unit, const Memory& memory) const {
    const TapRun run = TapsOfStep(band, step);
    if (run.taps == 0) {
      return;
    }
    const ChannelBlock& block = *band.item.block;
    const PieceRun slices = {0, block.offset_groups};
    Tile tile;
    SetTileOf(band, step / UnitsOfTile(), &tile);
    LoadGradOutput(call_, tile, block, {0, g_.group_out_channels}, memory.grad_output);
    // Behind the last of several members are columns that no product writes.
    FillZeros(unit.grad_columns, block.members > 1 ? run.taps * TapColumns(block) : 0);
    GradColumns(tile, block, slices, run, {memory.grad_output, unit.grad_columns});
    VisitSlices(tile, block, slices, run, unit.grad_columns,
                [&](int64_t i, int64_t t, auto pitch, const Matrix<const Real>& columns) {
                  TapScatter& scatter = unit.scatters[t * blocks_.most_slices() + i];
                  TapPoints<Real> points;
                  RunSlice<pitch, false>(tile, band, i, run.first + t, columns, &points,
                                         &scatter.samples);
                  scatter.corners = CornersOf(tile.pixels, points);
                });
  }

  // A piece is some rows of a slice in a band's gradient slab.
  void ScatterUnits(const Wave& wave, int64_t phase, Worker* worker) const {
    const int64_t rows = CeilDivide(g_.in_height, kRowPieces);
    const int64_t pieces = CeilDivide(g_.in_height, rows);
    const int64_t slices = blocks_.most_slices();
    worker->Share(BandsOf(wave) * slices * pieces, [&](int64_t piece) {
      const int64_t y = piece % pieces * rows;
      const SlabRange range = {
          static_cast<int32_t>(SlabPixel(g_, y, -1)),
          static_cast<int32_t>(SlabPixel(g_, Minimum(y + rows, g_.in_height), -1))};
      ScatterToRange(wave, phase, piece / pieces / slices, piece / pieces % slices, range);
    });
  }

  void ScatterToRange(const Wave& wave, int64_t phase, int64_t band_index, int64_t slice_index,
                      const SlabRange& range) const {
    const Band band = BandAt(wave, band_index);
    const ChannelBlock& block = *band.item.block;
    if (slice_index >= block.offset_groups) {
      return;
    }
    const Slice& slice = blocks_.SlicesOf(block)[slice_index];
    const auto slab_width = static_cast<int32_t>(SlabWidth(g_));
    Real* grad_slab = band.grad_slab + slice.column * SlabPixels(g_);
    const int64_t bands = BandsOf(wave);
    const int64_t first = phase * units_;
    // The first unit of the phase that is the band's, and those after it.
    for (int64_t index = (band_index - first % bands + bands) % bands; index < units_;
         index += bands) {
      const int64_t step = (first + index) / bands;
      const TapRun run = TapsOfStep(band, step);
      const Unit unit = UnitAt(phase, index);
      for (int64_t t = 0; t < run.taps; ++t) {
        const TapScatter& scatter = unit.scatters[t * blocks_.most_slices() + slice_index];
        if (scatter.corners.first >= range.end || scatter.corners.end + slab_width <= range.first) {
          continue;
        }
        const Matrix<const Real> columns = {
            unit.grad_columns + t * TapColumns(block) + slice.column, block.pitch,
            PixelsOfStep(band, step), slice.pitch};
        WithPitch<Real>(slice.pitch, [&](auto pitch) {
          ScatterToRows<pitch>(scatter.samples, columns, grad_slab, slab_width, range);
        });
      }
    }
  }

  void SetTileOf(const Band& band, int64_t index, Tile* tile) const {
    tiles_.Set(band.item.image * tiles_.per_image() + band.first_tile + index, tile);
  }

  int64_t PixelsOfStep(const Band& band, int64_t step) const {
    return tiles_.PixelsOf(band.first_tile + step / UnitsOfTile());
  }

  // grad_columns[tap, pixel, column] of some slices, with taps TapColumns(block) apart.
  void GradColumns(const Tile& tile, const ChannelBlock& block, const PieceRun& slices,
                   const TapRun& taps, const Memory& memory) const {
    for (int64_t t = 0; t < taps.taps; ++t) {
      GradColumnsOf(tile, block, slices, taps.first + t,
                    {memory.grad_output, memory.grad_columns + t * TapColumns(block)});
    }
  }

  // Those of one tap.
  void GradColumnsOf(const Tile& tile, const ChannelBlock& block, const PieceRun& slices,
                     int64_t tap, const Memory& memory) const {
    const int64_t outputs = g_.group_out_channels;
    const ColumnRun columns = {block.member_columns * slices.first / block.offset_groups,
                               block.member_columns * slices.end / block.offset_groups};
    for (int64_t member = 0; member < block.members; ++member) {
      Factor<Real> a;
      a.data = memory.grad_output + member * outputs * kTilePixels;
      a.rows = tile.pixels;
      a.row = 1;
      a.steps = outputs;
      a.step = kTilePixels;
      MultiplyPacked(
          a, PackedRows<Real>{WeightsOf(block, member, tap), outputs, 0, block.member_columns},
          columns, Rows<Real>{memory.grad_columns + member * block.member_columns, block.pitch},
          false);
    }
  }

  // Calls visit(slice, tap, pitch, columns) for some slices of a block and the taps of a run, both
  // counted from 0. All taps of a slice in turn: what a tile samples of it stays in L1.
  template <typename Visitor>
  void VisitSlices(const Tile& tile, const ChannelBlock& block, const PieceRun& slices,
                   const TapRun& taps, const Real* grad_columns, Visitor visit) const {
    for (int64_t i = slices.first; i < slices.end; ++i) {
      const Slice& slice = blocks_.SlicesOf(block)[i];
      WithPitch<Real>(slice.pitch, [&](auto pitch) {
        for (int64_t t = 0; t < taps.taps; ++t) {
          const Real* columns = grad_columns + t * TapColumns(block) + slice.column;
          visit(i, t, pitch, Matrix<const Real>{columns, block.pitch, tile.pixels, pitch});
        }
      });
    }
  }

  // The point gradients of one tap and slice over a tile; with kScatter also its share of the
  // gradient slab.
  template <int kPitch, bool kScatter>
  void RunSlice(const Tile& tile, const Band& band, int64_t slice_index, int64_t tap,
                const Matrix<const Real>& columns, TapPoints<Real>* points,
                TapSamples<Real>* samples) const {
    const Slice& slice = blocks_.SlicesOf(*band.item.block)[slice_index];
    TapGradients<Real> gradients;
    Real dots[kTilePixels][kCorners];
    plan_.Locate(tile, slice.offset_group, tap, points);
    plan_.Fold(tile.pixels, *points, samples);
    const int64_t first = slice.column * SlabPixels(g_);
    VisitCorners<kPitch, kScatter>(
        *points, *samples, columns,
        {band.item.slab + first, band.grad_slab + first, SlabWidth(g_) * kPitch}, dots);
    GradPoints(tile.pixels, *points, dots, &gradients);
    points_.Take(tile, slice, tap, band.item.slot, gradients);
  }

  void StoreGradRows(const Wave& wave, Worker* worker) const {
    worker->ShareShort((wave.end - wave.first) * g_.in_height, [&](int64_t piece) {
      StoreGradRow(ItemAt(wave, wave.first + piece / g_.in_height), piece % g_.in_height);
    });
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
  Tiles tiles_;
  ChannelBlocks<Real> blocks_;
  SlabLoader<Real> loader_;
  Plan<Real> plan_;
  PointGradients<Real> points_;
  int64_t slab_size_;
  int64_t bands_;
  int64_t wave_;                    // blocks of images worked on at a time
  Real* slabs_ = nullptr;           // [item of the wave], each [slice, slab pixel, place]
  Real* grad_slabs_ = nullptr;      // [item of the wave, band], each as slabs_
  Real* weights_ = nullptr;         // [block, member, tap], each packed [output][column]
  Real* grad_outputs_ = nullptr;    // [thread], each [output of the block's groups, kTilePixels]
  Real* grad_columns_ = nullptr;    // [thread], each [tap of the block, pixel, column]
  int64_t units_;                   // of a phase
  Real* unit_columns_ = nullptr;    // [half, unit, tap of the unit], each [pixel, column]
  TapScatter* scatters_ = nullptr;  // [half, unit, tap of the unit, slice]
};

}  // namespace MS_DEFORM_ISA
}  // namespace ms_deform

#endif  // MS_DEFORM_CPU_BACKWARD_INPUT_H_
