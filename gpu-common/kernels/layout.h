// Where a wave's lanes keep the elements of 16 x 16 tiles: what the devices' matrix instructions ask for. A target names
// the one of its own as GK_LAYOUT.
//
// An operand is 16 rows of LENGTH times 32 bytes along k, words of four bytes in NUM_COPIES lanes; a result is 16 x 16
// values. The NUM_SLICES slices of an operand's row are runs of k: a lane holds one slice of each of its rows. A lane has
// results in LANE_ROWS rows, of which the LANES_PER_ROW lanes beside each other have the rest.
#pragma once

#include "gk.h"

namespace gk {

constexpr u32 TILE = 16;
// Bytes of k of one row of an operand of length 1.
constexpr u32 OPERAND_BYTES = 32;

// NVIDIA's mma.sync.m16n8k16 (m16n8k32 for codes), two of them side by side.
struct MmaLayout {
  static constexpr u32 NUM_COPIES = 1, NUM_SLICES = 4, LANE_ROWS = 2, LANES_PER_ROW = 4;
  // A lane has of a result what it has of a left operand: the values of word `i` are left_value(i) and the next one.
  static constexpr bool RESULT_IS_LEFT = true;
  GK_DEVICE static u32 left_value(u32 i) { return i % 2 * 2 + i / 2 * 4; }

  // Row of the left operand, column of the right one, and first of the four bytes of k that word `i` of `lane` holds.
  GK_DEVICE static u32 left_row(u32 lane, u32 i) { return lane / 4 + i % 2 * 8; }
  GK_DEVICE static u32 right_col(u32 lane, u32 i) { return lane / 4 + i / 2 * 8; }
  template <u32 LENGTH>
  GK_DEVICE static u32 left_byte(u32 lane, u32 i) {
    return lane % 4 * 4 + i / 2 * 16;
  }
  template <u32 LENGTH>
  GK_DEVICE static u32 right_byte(u32 lane, u32 i) {
    return lane % 4 * 4 + i % 2 * 16;
  }

  // Of value `i` of a result; which of the lane's rows it is of, and the first value of one of these.
  GK_DEVICE static u32 result_row(u32 lane, u32 i) { return lane / 4 + i / 2 % 2 * 8; }
  GK_DEVICE static u32 result_col(u32 lane, u32 i) { return lane % 4 * 2 + i % 2 + i / 4 * 8; }
  GK_DEVICE static u32 lane_row(u32 i) { return i / 2 % 2; }
  GK_DEVICE static u32 first_of_row(u32 lane_row) { return 2 * lane_row; }

  GK_DEVICE static u32 slice(u32 lane) { return lane % 4; }
  GK_DEVICE static u32 slice_row(u32 lane, u32 j) { return lane / 4 + j * 8; }
};

// A lane has a part of one row of an operand, and results of one column: AMD's v_mfma_*_16x16x* in waves of 64, RDNA4's
// v_wmma_*_16x16x16 in waves of 32.
struct LaneRowLayout {
  // Lanes with parts of the same row.
  static constexpr u32 NUM_SLICES = WAVE / TILE;
  static constexpr u32 NUM_COPIES = 1, LANE_ROWS = TILE / NUM_SLICES, LANES_PER_ROW = TILE;
  static constexpr bool RESULT_IS_LEFT = false;

  GK_DEVICE static u32 left_row(u32 lane, u32) { return lane % TILE; }
  GK_DEVICE static u32 right_col(u32 lane, u32) { return lane % TILE; }
  template <u32 LENGTH>
  GK_DEVICE static u32 left_byte(u32 lane, u32 i) {
    return lane / TILE * (LENGTH * OPERAND_BYTES / NUM_SLICES) + i * 4;
  }
  template <u32 LENGTH>
  GK_DEVICE static u32 right_byte(u32 lane, u32 i) {
    return left_byte<LENGTH>(lane, i);
  }

  GK_DEVICE static u32 result_row(u32 lane, u32 i) { return lane / TILE * LANE_ROWS + i; }
  GK_DEVICE static u32 result_col(u32 lane, u32) { return lane % TILE; }
  GK_DEVICE static u32 lane_row(u32 i) { return i; }
  GK_DEVICE static u32 first_of_row(u32 lane_row) { return lane_row; }

  GK_DEVICE static u32 slice(u32 lane) { return lane / TILE; }
  GK_DEVICE static u32 slice_row(u32 lane, u32) { return lane % TILE; }
};

// RDNA3's v_wmma_*_16x16x16 in waves of 32: both halves of the wave hold the whole operand, a row in a lane, and every
// other row of the result.
struct Wmma3Layout : LaneRowLayout {
  static constexpr u32 NUM_COPIES = 2;

  template <u32 LENGTH>
  GK_DEVICE static u32 left_byte(u32, u32 i) {
    return i * 4;
  }
  template <u32 LENGTH>
  GK_DEVICE static u32 right_byte(u32, u32 i) {
    return i * 4;
  }

  GK_DEVICE static u32 result_row(u32 lane, u32 i) { return i * 2 + lane / TILE; }
};

using Layout = GK_LAYOUT;

}  // namespace gk
