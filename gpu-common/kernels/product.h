// Products with weights: out = x Wt, for one matrix, for a batch of matrices, or for the experts' tokens. With two weights
// silu(x W0t) * (x W1t), the inner half of a gated FFN. What the kernels of rows.h, stream.h and tiled.h share: their
// arguments, which rows a block takes, and how the sums of each format are made.
#pragma once

#include "tile.h"

namespace gk {

// What x holds.
enum Input {
  // bf16 values.
  VALUES,
  // Codes in the format of the weight, with scales: FP8 [row][ceil(k/128)], INT8 [row].
  CODES,
};

// Everything a product needs. Rows of x are padded with zeros to a multiple of 32 elements.
struct Product {
  const u8* x;
  const float* x_scales;
  Weights weights[2];
  void* out;
  // Experts: four words per tile of rows (expert, first row, number of rows, unused), and the (token, choice) pair of
  // each row. Null otherwise: all rows meet one matrix per batch.
  const u32* tiles;
  const u32* pairs;
  // Rows of x; elements from row to row and from batch to batch of x.
  u32 num_rows, x_stride, x_batch;
  // Columns of out that are stored: n, or more, which are zero; elements from row to row and from batch to batch.
  u32 stored_n, out_stride, out_batch;
  // Bytes and scales from matrix to matrix.
  u32 weight_batch, scale_batch;
  // If not 0, row i of x is that of pair i divided by this: the token.
  u32 gather;
  // If not 0, row i of out is that of its pair.
  u32 scatter;
  // If not 0, out is f32, else bf16.
  u32 out_is_f32;
};

// The parameters of every product kernel, in the order of the arguments in gpu-common/src/product.rs.
#define GK_PRODUCT_PARAMS                                                                                         \
  const u8 *x, const float *x_scales, const u8 *w0, const float *w0_scales, const u8 *w1, const float *w1_scales, \
      void *out, const u32 *tiles, const u32 *pairs, u32 n, u32 k, u32 row_bytes, u32 group, u32 num_rows,        \
      u32 x_stride, u32 x_batch, u32 stored_n, u32 out_stride, u32 out_batch, u32 weight_batch, u32 scale_batch,  \
      u32 gather, u32 scatter, u32 out_is_f32
#define GK_PRODUCT                                                                                               \
  Product {                                                                                                      \
    x, x_scales, {{w0, w0_scales, n, k, row_bytes, group}, {w1, w1_scales, n, k, row_bytes, group}}, out, tiles, \
        pairs, num_rows, x_stride, x_batch, stored_n, out_stride, out_batch, weight_batch, scale_batch, gather,  \
        scatter, out_is_f32                                                                                      \
  }

// The rows of one block.
struct RowSpan {
  u32 first, count, matrix, batch;
};

GK_DEVICE RowSpan row_span(const Product& p, u32 max_rows) {
  if (p.tiles != nullptr) {
    const u32* tile = p.tiles + 4 * block_y();
    return {tile[1], tile[2], tile[0], 0};
  }
  const u32 first = block_y() * max_rows;
  return {first, min(max_rows, p.num_rows - first), block_z(), block_z()};
}

GK_DEVICE u32 input_row(const Product& p, u32 row) { return p.gather != 0 ? p.pairs[row] / p.gather : row; }
GK_DEVICE u32 output_row(const Product& p, u32 row) { return p.scatter != 0 ? p.pairs[row] : row; }

template <class T>
GK_DEVICE const T* x_row(const Product& p, u32 row, u32 batch) {
  return reinterpret_cast<const T*>(p.x) + u64(row) * p.x_stride + u64(batch) * p.x_batch;
}

template <Input I>
GK_DEVICE const u8* x_bytes(const Product& p, u32 row, u32 batch) {
  return I == CODES ? x_row<u8>(p, row, batch) : reinterpret_cast<const u8*>(x_row<bf16>(p, row, batch));
}

GK_DEVICE Weights weights_of(const Product& p, u32 which, u32 matrix) {
  // Arguments have no addresses: an index would move them to local memory.
  Weights w = which == 0 ? p.weights[0] : p.weights[1];
  w.values += u64(matrix) * p.weight_batch;
  w.scales += u64(matrix) * p.scale_batch;
  return w;
}

GK_DEVICE void store(const Product& p, u32 row, u32 col, u32 batch, float value) {
  const u64 at = u64(row) * p.out_stride + u64(batch) * p.out_batch + col;
  if (p.out_is_f32 != 0) {
    static_cast<float*>(p.out)[at] = value;
  } else {
    static_cast<bf16*>(p.out)[at] = to_bf16(value);
  }
}

// INT8 codes times INT8 codes are added up in i32.
template <Format F, Input I>
constexpr bool IN_INTEGERS = F == INT8 && I == CODES;

// The length of operands that fits the instructions for them.
template <Format F, Input I>
constexpr u32 LENGTH_OF = I == VALUES ? BF16_LENGTH : F == FP8 ? FP8_LENGTH : INT8_LENGTH;

// The sums of a tile: what was multiplied since the last scaling, and what was scaled before. Only FP8 is scaled on the
// way, every FP8_BLOCK columns; the other formats' scales are constant along k, or in the operands.
template <Format F, Input I>
class Sums {
 public:
  using Value = typename Either<IN_INTEGERS<F, I>, i32, float>::Type;

  GK_DEVICE void clear() {
    gk::clear(products_);
    if constexpr (F == FP8) gk::clear(scaled_);
  }

  template <u32 LENGTH>
  GK_DEVICE void multiply(const LongOperand<LENGTH>& left, const LongOperand<LENGTH>& right) {
    if constexpr (I == VALUES) mma(products_, left, right);
    if constexpr (I == CODES && F == FP8) mma_e4m3(products_, left, right);
    if constexpr (I == CODES && F == INT8) mma_int8(products_, left, right);
  }

  // Ends an FP8 block: `factor(i)` is the scale of value i.
  template <class Factor>
  GK_DEVICE void scale(Factor factor) {
    static_assert(F == FP8, "the format that is scaled in blocks");
#pragma unroll
    for (u32 i = 0; i < RESULT_VALUES; ++i) scaled_.values[i] += products_.values[i] * factor(i);
    gk::clear(products_);
  }

  GK_DEVICE Value value(u32 i) const {
    if constexpr (F == FP8) return scaled_.values[i];
    if constexpr (F != FP8) return products_.values[i];
  }

 private:
  TileSums<Value> products_;
  TileSums<float> scaled_;
};

// The scale of row `row` of x in the FP8 block around column `k`; 1 for values.
template <Input I>
GK_DEVICE float x_scale(const Product& p, u32 row, u32 k) {
  return I == CODES ? p.x_scales[u64(row) * div_up(p.weights[0].k, FP8_BLOCK) + k / FP8_BLOCK] : 1.0f;
}

// A finished sum of `row` of x and row `n` of W, with the scales that are constant along k; zero from the last n on.
template <Format F, Input I>
GK_DEVICE float finished(const Product& p, const Weights& w, u32 row, u32 n, typename Sums<F, I>::Value sum) {
  if (n >= w.n) return 0.0f;
  if constexpr (IN_INTEGERS<F, I>) return float(sum) * p.x_scales[row] * row_scale<F>(w, n);
  if constexpr (!IN_INTEGERS<F, I>) return sum * row_scale<F>(w, n);
}

// Stores out[row][col] of finished sums, where the column is to be stored.
template <u32 NUM_WEIGHTS>
GK_DEVICE void store_finished(const Product& p, const RowSpan& span, u32 row, u32 col, const float (&sums)[NUM_WEIGHTS]) {
  if (col >= p.stored_n) return;
  const float value = NUM_WEIGHTS == 2 ? gated(sums[0], sums[NUM_WEIGHTS - 1]) : sums[0];
  store(p, output_row(p, span.first + row), col, span.batch, value);
}

// A kernel of a family, FAMILY_FORMAT_INPUT_BODY. Inputs: a16 bf16 values, a8 codes. Bodies: m1, m4 (rows.h), s16, s32
// (stream.h), t64 (tiled.h): rows of x of a block.
#define GK_PRODUCT_KERNEL(name, body)                     \
  GK_KERNEL name(GK_PRODUCT_PARAMS) { body(GK_PRODUCT); } \
  GK_EXPORT(name)

}  // namespace gk
