// How tiles of keys come from the cache to shared memory: a policy for each format of the cache. Both begin copies with
// start() and hand out the tile that was begun with next(), in bf16, rows `width + PAD` apart, beginning the one after it.
#pragma once

#include "fp8_slot.h"
#include "mla_attention.h"

namespace gk {

// bf16 slots are rows already. Two tiles: one is computed with while the other is copied.
class NativeKeys {
 public:
  GK_DEVICE NativeKeys(const Attention& p, Shared& shared) : stride_(p.width + PAD) {
    tiles_[0] = shared.take<bf16>(p.tile_positions * stride_);
    tiles_[1] = shared.take<bf16>(p.tile_positions * stride_);
  }

  GK_DEVICE void start(const Attention& p, const Part& part, u32 first) {
    stage_slots(p, part, first, 2 * p.width, reinterpret_cast<u8*>(tiles_[0]), 2 * stride_);
    copy_async_commit();
  }

  GK_DEVICE const bf16* next(const Attention& p, const Part& part, u32 after) {
    // The tile is there, and nobody reads the one before it any more.
    copy_async_wait<0>();
    sync();
    const bf16* keys = tiles_[0];
    tiles_[0] = tiles_[1];
    tiles_[1] = const_cast<bf16*>(keys);
    if (after < part.end) start(p, part, after);
    return keys;
  }

 private:
  const u32 stride_;
  // Of the next tile, and of the one computed with.
  bf16* tiles_[2];
};

// A tile of FP8 slots, as they are, and a tile of bf16 values to which it is widened when it has come. Then the slots'
// place is free for the next ones.
class Fp8Keys {
 public:
  GK_DEVICE Fp8Keys(const Attention& p, Shared& shared)
      : stride_(p.width + PAD), slot_bytes_(fp8_slot_bytes(p.padded_rank, p.width)) {
    tile_ = shared.take<bf16>(p.tile_positions * stride_);
    slots_ = shared.take<u8>(p.tile_positions * slot_bytes_);
  }

  GK_DEVICE void start(const Attention& p, const Part& part, u32 first) {
    stage_slots(p, part, first, slot_bytes_, slots_, slot_bytes_);
    copy_async_commit();
  }

  GK_DEVICE const bf16* next(const Attention& p, const Part& part, u32 after) {
    // The slots are there, and nobody reads the tile any more.
    copy_async_wait<0>();
    sync();
#pragma unroll 1
    for (u32 i = thread() / LANES_PER_POSITION; i < p.tile_positions; i += num_threads() / LANES_PER_POSITION) {
      bf16* to = tile_ + i * stride_;
      widen_slot(slots_ + i * slot_bytes_, p.padded_rank, p.width, thread() % LANES_PER_POSITION, LANES_PER_POSITION, to,
                 to + p.padded_rank);
    }
    // The tile is there, and nobody reads the slots any more.
    sync();
    if (after < part.end) start(p, part, after);
    return tile_;
  }

 private:
  const u32 stride_, slot_bytes_;
  bf16* tile_;
  u8* slots_;
};

}  // namespace gk
