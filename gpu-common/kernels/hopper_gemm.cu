// Products of quantised activations with FP8 weights on Hopper: out = x Wt, or silu(x W0t) * (x W1t), for many rows.
//
// x holds e4m3 codes with a scale per row and 128 columns, weights e4m3 with a scale per 128 x 128. Sums of 128 products
// are made by the tensor cores, whose accumulators are short, then scaled and added up in f32.
//
// A block has one warpgroup that copies and one or two that multiply. Operands pass through a ring of stages of 128 bytes
// of k: `full` barriers say that a stage has arrived, `empty` ones that it was read. Blocks stay and take tile after tile,
// so that the copies of the next tile run while the results of the last one are stored.
#include "formats.h"
#include "hopper.h"

namespace gk {

// The parameters of every kernel in here, in the order of the arguments in backend-cuda/src/wide.rs.
struct WideProduct {
  const float* x_scales;
  const float* w_scales[2];
  void* out;
  // Four words per tile of rows (matrix, first row, number of rows, unused), and where each row of the result goes; null
  // where all rows meet the one matrix, or stay in order.
  const u32* tiles;
  const u32* pairs;
  // Rows of x, or of the tiles' table.
  u32 num_rows, num_tiles;
  // Of a matrix, in rows and in scales.
  u32 n, k, matrix_scales;
  // Columns of out that are stored, those from n on are zero; elements from row to row. Multiples of 8.
  u32 stored_n, out_stride;
  u32 out_is_f32;
};

constexpr u32 TILE_COLS = PRODUCT_COLS;
// Row tiles that neighbouring blocks work on: they share operands in the L2 cache.
constexpr u32 RASTER_ROWS = 8;
// What the shared memory is rounded up to: the swizzle's pattern.
constexpr u32 PATTERN_BYTES = SWIZZLE_ROWS * SWIZZLE_BYTES;

// The work of a block at a time.
struct WideTile {
  u32 matrix, first_row, num_rows, first_col;
};

template <u32 ROWS, u32 NUM_WEIGHTS>
struct Wide {
  static constexpr u32 GROUPS = ROWS == 64 ? 1 : 2;
  static constexpr u32 THREADS = (GROUPS + 1) * WARPGROUP;
  // Products of 64 rows that a warpgroup makes one after the other.
  static constexpr u32 HALVES = ROWS / GROUPS / PRODUCT_ROWS;
  // Columns of the result: with two weights each has half of the tile.
  static constexpr u32 COLS = TILE_COLS / NUM_WEIGHTS;
  static constexpr u32 STAGES = ROWS == 256 ? 4 : 6;
  static constexpr u32 X_BYTES = ROWS * SWIZZLE_BYTES;
  static constexpr u32 STAGE_BYTES = X_BYTES + TILE_COLS * SWIZZLE_BYTES;

  GK_DEVICE static u32 num_tiles(const WideProduct& p) { return p.num_tiles * div_up(p.stored_n, COLS); }

  GK_DEVICE static WideTile tile(const WideProduct& p, u32 index) {
    const u32 per_raster = RASTER_ROWS * div_up(p.stored_n, COLS);
    const u32 first = index / per_raster * RASTER_ROWS, rows = min(RASTER_ROWS, p.num_tiles - first);
    const u32 row_tile = first + index % per_raster % rows, first_col = index % per_raster / rows * COLS;
    if (p.tiles == nullptr) {
      const u32 first_row = row_tile * ROWS;
      return {0, first_row, min(ROWS, p.num_rows - first_row), first_col};
    }
    const u32* tile = p.tiles + 4 * row_tile;
    return {tile[0], tile[1], tile[2], first_col};
  }
};

// A place in the ring and how often it has gone around.
template <u32 STAGES>
struct RingPlace {
  u32 stage = 0, parity = 0;

  GK_DEVICE void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// The ring in shared memory.
template <u32 STAGES, u32 STAGE_BYTES>
struct Ring {
  u8* stages;
  u64* full;
  u64* empty;

  GK_DEVICE Ring() {
    Shared shared;
    u8* memory = shared.take<u8>(STAGES * STAGE_BYTES + PATTERN_BYTES);
    stages = memory + (PATTERN_BYTES - shared_address(memory) % PATTERN_BYTES) % PATTERN_BYTES;
    full = shared.take<u64>(STAGES);
    empty = shared.take<u64>(STAGES);
  }

  GK_DEVICE void init(u32 num_readers) const {
    if (thread() == 0) {
      for (u32 i = 0; i < STAGES; ++i) init_barrier(full + i, 1), init_barrier(empty + i, num_readers);
      fence_barriers();
    }
    sync();
  }
};

// Copies the operands of every tile of the block. One thread.
template <class W, class R>
GK_DEVICE void copy_operands(const WideProduct& p, const R& ring, const TensorMap& x, const TensorMap* const (&weights)[2]) {
  constexpr u32 NUM_WEIGHTS = TILE_COLS / W::COLS;
  RingPlace<W::STAGES> place;
#pragma unroll 1
  for (u32 index = block_x(); index < W::num_tiles(p); index += grid_x()) {
    const WideTile tile = W::tile(p, index);
    if (tile.num_rows == 0) continue;
#pragma unroll 1
    for (u32 at = 0; at < p.k; at += SWIZZLE_BYTES) {
      u8* stage = ring.stages + place.stage * W::STAGE_BYTES;
      u64* full = ring.full + place.stage;
      wait(ring.empty + place.stage, place.parity ^ 1);
      arrive_expecting(full, W::STAGE_BYTES);
      copy_box(stage, x, at, tile.first_row, full);
#pragma unroll
      for (u32 w = 0; w < NUM_WEIGHTS; ++w) {
        u8* to = stage + W::X_BYTES + w * W::COLS * SWIZZLE_BYTES;
        copy_box(to, *weights[w], at, tile.matrix * p.n + tile.first_col, full);
      }
      place.advance();
    }
  }
}

// Four words of each lane, one per group of columns, become the four words of one group: that of the lane's place among
// four. Lanes hold two columns each before and eight after.
GK_DEVICE Vec16 gather_columns(const u32 (&words)[4]) {
  const u32 place = lane() % 4;
  const bool is_odd = place % 2 != 0, is_upper = place / 2 != 0;
  u32 pairs[2][2];
#pragma unroll
  for (u32 i = 0; i < 2; ++i) {
    const u32 other = shuffle_xor(is_odd ? words[2 * i] : words[2 * i + 1], 1);
    pairs[i][0] = is_odd ? other : words[2 * i];
    pairs[i][1] = is_odd ? words[2 * i + 1] : other;
  }
  u32 others[2];
#pragma unroll
  for (u32 i = 0; i < 2; ++i) others[i] = shuffle_xor(is_upper ? pairs[0][i] : pairs[1][i], 2);
  if (is_upper) return Vec16{{others[0], others[1], pairs[1][0], pairs[1][1]}};
  return Vec16{{pairs[0][0], pairs[0][1], others[0], others[1]}};
}

// A result before it is rounded; zero from column n on.
template <u32 NUM_WEIGHTS>
GK_DEVICE float wide_result(const WideProduct& p, const float (&sums)[PRODUCT_VALUES], u32 i, u32 col) {
  if (col >= p.n) return 0.0f;
  if constexpr (NUM_WEIGHTS == 1) return sums[i];
  return gated(sums[i], sums[i + PRODUCT_VALUES / 2]);
}

// Stores 64 rows of a tile, from `row` of it on.
template <u32 NUM_WEIGHTS>
GK_DEVICE void store_results(const WideProduct& p, const WideTile& tile, u32 row, const float (&sums)[PRODUCT_VALUES]) {
  constexpr u32 VALUES = PRODUCT_VALUES / NUM_WEIGHTS;
#pragma unroll
  for (u32 half = 0; half < 2; ++half) {
    const u32 tile_row = row + product_row(2 * half);
    const bool is_stored = tile_row < tile.num_rows;
    const u32 in_row = tile.first_row + min(tile_row, tile.num_rows - 1);
    const u64 start = u64(p.pairs != nullptr ? p.pairs[in_row] : in_row) * p.out_stride + tile.first_col;
#pragma unroll
    for (u32 group = 0; group < VALUES / 4; group += 4) {
      u32 words[4];
#pragma unroll
      for (u32 g = 0; g < 4; ++g) {
        const u32 i = 4 * (group + g) + 2 * half, col = product_col(i);
        const float first = wide_result<NUM_WEIGHTS>(p, sums, i, tile.first_col + col);
        const float second = wide_result<NUM_WEIGHTS>(p, sums, i + 1, tile.first_col + col + 1);
        words[g] = pack(to_bf16(first), to_bf16(second));
        if (p.out_is_f32 != 0 && is_stored && tile.first_col + col < p.stored_n) {
          store_vec(static_cast<float*>(p.out) + start + col, Vec8{{float_to_bits(first), float_to_bits(second)}});
        }
      }
      if (p.out_is_f32 != 0) continue;
      const Vec16 vec = gather_columns(words);
      const u32 col = 8 * (group + lane() % 4);
      if (is_stored && tile.first_col + col < p.stored_n) store_vec(static_cast<bf16*>(p.out) + start + col, vec);
    }
  }
}

// Where the scales are that a thread needs for a tile, and those of one block of k.
template <u32 HALVES, u32 NUM_WEIGHTS>
struct Scales {
  float x[HALVES][2];
  float w[NUM_WEIGHTS];
};

template <class W, u32 NUM_WEIGHTS>
struct ScalePlaces {
  const float* x[W::HALVES][2];
  const float* w[NUM_WEIGHTS];

  GK_DEVICE ScalePlaces(const WideProduct& p, const WideTile& tile, u32 first_row) {
    const u32 num_blocks = div_up(p.k, FP8_BLOCK), block_row = min(tile.first_col, p.n - 1) / FP8_BLOCK;
#pragma unroll
    for (u32 i = 0; i < 2 * W::HALVES; ++i) {
      // Rows past the last one have results that nobody stores.
      const u32 row = min(first_row + i / 2 * PRODUCT_ROWS + product_row(i % 2 * 2), tile.num_rows - 1);
      x[i / 2][i % 2] = p.x_scales + u64(tile.first_row + row) * num_blocks;
    }
#pragma unroll
    for (u32 i = 0; i < NUM_WEIGHTS; ++i) {
      w[i] = p.w_scales[i] + u64(tile.matrix) * p.matrix_scales + u64(block_row) * num_blocks;
    }
  }

  GK_DEVICE Scales<W::HALVES, NUM_WEIGHTS> at(u32 block) const {
    Scales<W::HALVES, NUM_WEIGHTS> scales;
#pragma unroll
    for (u32 i = 0; i < 2 * W::HALVES; ++i) scales.x[i / 2][i % 2] = x[i / 2][i % 2][block];
#pragma unroll
    for (u32 i = 0; i < NUM_WEIGHTS; ++i) scales.w[i] = w[i][block];
    return scales;
  }
};

// Multiplies every tile of the block: the rows of one warpgroup.
template <class W, class R>
GK_DEVICE void multiply_tiles(const WideProduct& p, const R& ring, u32 group) {
  constexpr u32 NUM_WEIGHTS = TILE_COLS / W::COLS;
  const u32 num_blocks = div_up(p.k, FP8_BLOCK), first_row = group * W::HALVES * PRODUCT_ROWS;
  RingPlace<W::STAGES> place;
#pragma unroll 1
  for (u32 index = block_x(); index < W::num_tiles(p); index += grid_x()) {
    const WideTile tile = W::tile(p, index);
    if (tile.num_rows == 0) continue;
    const ScalePlaces<W, NUM_WEIGHTS> places(p, tile, first_row);
    Scales<W::HALVES, NUM_WEIGHTS> next = places.at(0);
    float sums[W::HALVES][PRODUCT_VALUES] = {};
#pragma unroll 1
    for (u32 block = 0; block < num_blocks; ++block) {
      const Scales<W::HALVES, NUM_WEIGHTS> scales = next;
      const u8* stage = ring.stages + place.stage * W::STAGE_BYTES;
      const u64 x = product_operand(stage + first_row * SWIZZLE_BYTES), weights = product_operand(stage + W::X_BYTES);
      wait(ring.full + place.stage, place.parity);
#pragma unroll
      for (u32 h = 0; h < W::HALVES; ++h) {
        float products[PRODUCT_VALUES];
        fence_products();
#pragma unroll
        for (u32 step = 0; step < SWIZZLE_BYTES / PRODUCT_K; ++step) {
          const u64 right = step * PRODUCT_K / 16;
          multiply(products, x + h * (PRODUCT_ROWS * SWIZZLE_BYTES / 16) + right, weights + right, step != 0);
        }
        commit_products();
        // On their way while the tensor cores work.
        if (h == 0) next = places.at(min(block + 1, num_blocks - 1));
        wait_products();
        // Each wave reads the stage on its own.
        if (h + 1 == W::HALVES && lane() == 0) arrive(ring.empty + place.stage);
#pragma unroll
        for (u32 i = 0; i < PRODUCT_VALUES; ++i) {
          sums[h][i] += products[i] * (scales.x[h][i / 2 % 2] * scales.w[i / (PRODUCT_VALUES / NUM_WEIGHTS)]);
        }
      }
      place.advance();
    }
#pragma unroll
    for (u32 h = 0; h < W::HALVES; ++h) store_results<NUM_WEIGHTS>(p, tile, first_row + h * PRODUCT_ROWS, sums[h]);
  }
}

template <u32 ROWS, u32 NUM_WEIGHTS>
GK_DEVICE void run(const WideProduct& p, const TensorMap& x, const TensorMap& w0, const TensorMap& w1) {
  using W = Wide<ROWS, NUM_WEIGHTS>;
  const Ring<W::STAGES, W::STAGE_BYTES> ring;
  ring.init(W::GROUPS * WARPGROUP / WAVE);
  const u32 group = warpgroup();
  if (group == W::GROUPS) {
    keep_registers<24>();
    if (thread() % WARPGROUP != 0) return;
    prefetch(x), prefetch(w0), prefetch(w1);
    copy_operands<W>(p, ring, x, {&w0, &w1});
  } else {
    take_registers<240>();
    multiply_tiles<W>(p, ring, group);
  }
}

#define GK_WIDE_KERNEL(name, rows, num)                                                                            \
  GK_KERNEL_OF((Wide<rows, num>::THREADS))                                                                         \
  name(const GK_BY_VALUE TensorMap x, const GK_BY_VALUE TensorMap w0, const GK_BY_VALUE TensorMap w1,              \
       const float* x_scales, const float* w0_scales, const float* w1_scales, void* out, const u32* tiles,         \
       const u32* pairs, u32 num_rows, u32 num_tiles, u32 n, u32 k, u32 matrix_scales, u32 stored_n,               \
       u32 out_stride, u32 out_is_f32) {                                                                           \
    run<rows, num>({x_scales, {w0_scales, w1_scales}, out, tiles, pairs, num_rows, num_tiles, n, k, matrix_scales, \
                    stored_n, out_stride, out_is_f32},                                                             \
                   x, w0, w1);                                                                                     \
  }                                                                                                                \
  GK_EXPORT(name)

GK_WIDE_KERNEL(linear_fp8_wgmma64, 64, 1)
GK_WIDE_KERNEL(linear_fp8_wgmma128, 128, 1)
GK_WIDE_KERNEL(linear_fp8_wgmma256, 256, 1)
GK_WIDE_KERNEL(gate_up_fp8_wgmma64, 64, 2)
GK_WIDE_KERNEL(gate_up_fp8_wgmma128, 128, 2)
GK_WIDE_KERNEL(gate_up_fp8_wgmma256, 256, 2)

}  // namespace gk
