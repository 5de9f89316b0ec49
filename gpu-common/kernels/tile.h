// Products of 16 x 16 matrix tiles by one wave.
//
// An operand is 16 rows of 32 bytes along k: 16 bf16 values or 32 codes. Devices whose instructions take more at once have
// operands of that length. It is spread over the lanes of a wave; where each byte lives is the target's business (layout.h)
// and follows its matrix instructions, the same for every kind of element.
// Kernels load operands from shared memory, or make them of what their lanes hold (slices), and find out by result_row and
// result_col which elements of a result a lane has.
#pragma once

#include "formats.h"
#include "gk.h"
#include "layout.h"

namespace gk {

// Words of an operand for which a lane alone answers, words that it holds, and values it holds of a result.
constexpr u32 OWN_WORDS = TILE * OPERAND_BYTES / 4 / WAVE;
constexpr u32 OPERAND_WORDS = OWN_WORDS * Layout::NUM_COPIES;
constexpr u32 RESULT_VALUES = TILE * TILE / WAVE;

template <u32 LENGTH>
struct LongOperand {
  u32 words[LENGTH * OPERAND_WORDS];
};
using TileOperand = LongOperand<1>;

// Sums of a tile: f32, or i32 for INT8 codes.
template <class T>
struct TileSums {
  T values[RESULT_VALUES];
};
using TileResult = TileSums<float>;

template <class T>
GK_DEVICE void clear(TileSums<T>& result) {
#pragma unroll
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] = T(0);
}

// Row and column of value `i` of a result.
GK_DEVICE u32 result_row(u32 i) { return Layout::result_row(lane(), i); }
GK_DEVICE u32 result_col(u32 i) { return Layout::result_col(lane(), i); }

// A lane holds values of LANE_ROWS rows of a result, and the LANES_PER_ROW lanes beside each other hold those of the same
// rows.
constexpr u32 LANE_ROWS = Layout::LANE_ROWS;
constexpr u32 LANES_PER_ROW = Layout::LANES_PER_ROW;

// Which of the lane's rows value `i` is of, and which row of the tile that is.
GK_DEVICE u32 lane_row(u32 i) { return Layout::lane_row(i); }
GK_DEVICE u32 tile_row(u32 lane_row) { return result_row(Layout::first_of_row(lane_row)); }

// Results rounded to bf16, as the left operand of another product, in layouts where that takes no other lane.
template <class L = Layout>
GK_DEVICE TileOperand as_left(const TileResult& result) {
  static_assert(L::RESULT_IS_LEFT, "a lane has of a result what it has of a left operand");
  TileOperand operand;
#pragma unroll
  for (u32 i = 0; i < OPERAND_WORDS; ++i) {
    const u32 value = L::left_value(i);
    operand.words[i] = rounded_pair(result.values[value], result.values[value + 1]);
  }
  return operand;
}

// Operands from registers. The slices of a row are as many runs of k; a lane holds one slice of each of its SLICE_ROWS
// rows, and a product takes the next STEP_WORDS words of every slice. Which k a product takes is then not the order of
// memory, which does not matter as long as both operands are sliced alike.
constexpr u32 NUM_SLICES = Layout::NUM_SLICES;
constexpr u32 SLICE_ROWS = TILE * NUM_SLICES / WAVE;
constexpr u32 STEP_WORDS = OPERAND_BYTES / 4 / NUM_SLICES;

GK_DEVICE u32 slice() { return Layout::slice(lane()); }
GK_DEVICE u32 slice_row(u32 j) { return Layout::slice_row(lane(), j); }

template <u32 NUM_WORDS>
struct Slices {
  u32 words[SLICE_ROWS][NUM_WORDS];
};

// Products that slices of `NUM_WORDS` words are enough for.
template <u32 NUM_WORDS>
constexpr u32 NUM_STEPS = NUM_WORDS / STEP_WORDS;

// An operand of the words that this lane has of it. Where two lanes need a whole row each, they have half of it each.
template <u32 LENGTH>
GK_DEVICE LongOperand<LENGTH> operand_of(const u32 (&own)[LENGTH * OWN_WORDS]) {
  constexpr u32 NUM_OWN = LENGTH * OWN_WORDS;
  LongOperand<LENGTH> operand;
#pragma unroll
  for (u32 i = 0; i < NUM_OWN; ++i) {
    operand.words[i] = own[i];
    if constexpr (Layout::NUM_COPIES == 2) {
      const u32 other = shuffle_xor(own[i], TILE);
      operand.words[i] = slice() == 0 ? own[i] : other;
      operand.words[NUM_OWN + i] = slice() == 0 ? other : own[i];
    }
  }
  return operand;
}

template <u32 LENGTH, u32 NUM_WORDS>
GK_DEVICE LongOperand<LENGTH> left_operand(const Slices<NUM_WORDS>& slices, u32 step) {
  u32 own[LENGTH * OWN_WORDS];
#pragma unroll
  for (u32 i = 0; i < LENGTH * OWN_WORDS; ++i)
    own[i] = slices.words[i % SLICE_ROWS][STEP_WORDS * step + i / SLICE_ROWS];
  return operand_of<LENGTH>(own);
}

template <u32 LENGTH, u32 NUM_WORDS>
GK_DEVICE LongOperand<LENGTH> right_operand(const Slices<NUM_WORDS>& slices, u32 step) {
  constexpr u32 ROW_WORDS = LENGTH * STEP_WORDS;
  u32 own[LENGTH * OWN_WORDS];
#pragma unroll
  for (u32 i = 0; i < LENGTH * OWN_WORDS; ++i)
    own[i] = slices.words[i / ROW_WORDS][STEP_WORDS * step + i % ROW_WORDS];
  return operand_of<LENGTH>(own);
}

// The targets provide, for operands of length 1 and of the length that fits an instruction (BF16_LENGTH, FP8_LENGTH,
// INT8_LENGTH):
//   load_left<LENGTH>(from, stride): left operand A[row][k] from shared memory, rows aligned to 16 bytes and `stride`
//     elements apart
//   load_right<LENGTH>(from, stride): right operand from memory that holds B[col][k]: weights as they are, keys by position
//   load_right_by_k<LENGTH>(from, stride): right operand of bf16 values from memory that holds B[k][col]: values by position
//   mma, mma_e4m3, mma_int8(result, left, right): result += left right, of bf16 values, of FP8 codes, of INT8 codes

}  // namespace gk

#if defined(__CUDACC_RTC__)
#include "tile_nvidia.h"
#elif defined(__HIP__)
#include "tile_amdgpu.h"
#else
#include "host/tile_host.h"
#endif
