// From logits to tokens.
#include "sums.h"

namespace gk {

// ids[row] = index of the largest of the first `num_ids` of `cols` values, the lowest of equals; 2^32 - 1 where none is
// above -inf. NaN is never largest. One block per row; shared memory: a float and a word per wave.
GK_KERNEL argmax(const float* logits, u32* ids, u32 num_ids, u32 cols) {
  Shared shared;
  float* values = shared.take<float>(num_waves());
  u32* indices = shared.take<u32>(num_waves());
  const float* row = logits + u64(block_x()) * cols;
  float best = neg_infinity();
  u32 index = 0xffffffffu;
  for (u32 i = thread(); i < num_ids; i += num_threads()) {
    if (row[i] > best) {
      best = row[i];
      index = i;
    }
  }
  wave_best(best, index);
  if (lane() == 0) {
    values[wave()] = best;
    indices[wave()] = index;
  }
  sync();
  if (thread() != 0) return;
  for (u32 i = 1; i < num_waves(); ++i) {
    if (values[i] > best || (values[i] == best && indices[i] < index)) {
      best = values[i];
      index = indices[i];
    }
  }
  ids[block_x()] = index;
}
GK_EXPORT(argmax)

// The highest logits of a row and the weight of all of them, by selection: no row is sorted. A block takes a segment of a
// row, whose values stay in registers, and finds its k highest: bit by bit, from the highest one down, the largest threshold
// that k values reach. Of the segments' choices it chooses again, until a segment is all that there is.
namespace {

// Values of a thread: each of a block's threads holds as many neighbours.
constexpr u32 ITEMS = 16;
constexpr u32 NO_TOKEN = 0xffffffffu;

// A number that is larger the larger the value, so that numbers compare as values do; 0 for NaN and -inf, which are never
// chosen.
GK_DEVICE u32 key_of(float value) {
  u32 bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u || bits == 0xff800000u) return 0;
  if (bits == 0x80000000u) bits = 0;
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

GK_DEVICE float value_of(u32 key) {
  if (key == 0) return neg_infinity();
  return bits_to_float(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}

// A thread's keys that `choose` takes.
template <class Choose>
GK_DEVICE u32 count(const u32 (&keys)[ITEMS], Choose choose) {
  u32 count = 0;
#pragma unroll
  for (u32 i = 0; i < ITEMS; ++i) count += choose(keys[i]);
  return count;
}

// The largest number that at least `k` of the block's keys reach, or one between it and the key below where exactly `k`
// do; 0 where fewer than `k` are above 0. `partials` holds two floats per wave.
GK_DEVICE u32 threshold(const u32 (&keys)[ITEMS], u32 k, float* partials) {
  u32 reached = 0;
#pragma unroll 1
  for (u32 bit = 32; bit-- > 0;) {
    const u32 next = reached | 1u << bit;
    const u32 own = count(keys, [next](u32 key) { return key >= next; });
    // Two turns never share their partial sums, so one barrier each is enough. Counts are exact in a float.
    const u32 all = u32(block_sum(float(own), partials + bit % 2 * num_waves()));
    if (all >= k) reached = next;
    if (all == k) break;
  }
  return reached;
}

// Where a segment's choice goes: `k` values and `k` ids.
struct Choice {
  float* values;
  u32* ids;
};

// Writes the values of keys above `least`, and of those that equal it the first ones, until there are `k`; fills up with
// none. `id_of` gives the id of a thread's key. `counts` holds a word per thread and one more.
template <class IdOf>
GK_DEVICE void write_choice(const u32 (&keys)[ITEMS], u32 least, u32 k, const Choice& to, u32* counts, IdOf id_of) {
  const u32 own_above = count(keys, [least](u32 key) { return key > least; });
  const u32 own_equal = count(keys, [least](u32 key) { return key == least && key != 0; });
  // Both counts of a block fit half a word, and so do their sums.
  counts[thread()] = own_above << 16 | own_equal;
  if (thread() == 0) counts[num_threads()] = least;
  sync();
  // The same number anew, so that comparing again takes no registers for what came of it before.
  least = counts[num_threads()];
  const u32 before = sum(counts, thread()), all = sum(counts, num_threads());
  u32 above = before >> 16, equal = before & 0xffffu;
  const u32 num_above = all >> 16, num_chosen = min(k, num_above + (all & 0xffffu));
#pragma unroll
  for (u32 i = 0; i < ITEMS; ++i) {
    u32 place = k;
    if (keys[i] > least) {
      place = above++;
    } else if (keys[i] == least && keys[i] != 0) {
      place = num_above + equal++;
    }
    if (place < k) {
      to.values[place] = value_of(keys[i]);
      to.ids[place] = id_of(i);
    }
  }
  for (u32 place = num_chosen + thread(); place < k; place += num_threads()) {
    to.values[place] = neg_infinity();
    to.ids[place] = NO_TOKEN;
  }
}

// The choice of a segment among others, values [row][segment][k] and then ids of the row, or the result of the row if it is
// the only one.
GK_DEVICE Choice choice_at(float* choices, u32* out, u32 num_segments, u32 k) {
  if (num_segments == 1) {
    u32* words = out + u64(block_x()) * (2 * k + 1);
    return Choice{reinterpret_cast<float*>(words + k), words};
  }
  float* values = choices + u64(block_x()) * num_segments * 2 * k + block_y() * k;
  return Choice{values, reinterpret_cast<u32*>(values + num_segments * k)};
}

GK_DEVICE void write_total(u32* out, u32 k, float total) {
  if (thread() == 0) out[u64(block_x()) * (2 * k + 1) + 2 * k] = float_to_bits(total);
}

}  // namespace

// Chooses the k highest of the first `num_ids` of `cols` logits: a block (row, segment of `num_segments`). `stats` [row][segment][2] takes the
// highest value of each segment and its weight, sum exp((value - highest) * inverse_temperature). Where a segment is the
// whole row, `out` [row][2 k + 1] takes ids, values and weight instead. Shared memory: a word per thread
// and one more, three floats per wave.
GK_KERNEL top_of_logits(const float* logits, const float* inverse_temperatures, float* choices, float* stats, u32* out,
                        u32 num_ids, u32 cols, u32 num_segments, u32 k) {
  Shared shared;
  u32* counts = shared.take<u32>(num_threads() + 1);
  float* partials = shared.take<float>(3 * num_waves());
  const float* row = logits + u64(block_x()) * cols;
  const u32 first = (block_y() * num_threads() + thread()) * ITEMS;
  u32 keys[ITEMS];
  float highest = neg_infinity();
#pragma unroll
  for (u32 i = 0; i < ITEMS; ++i) {
    const u32 key = key_of(row[min(first + i, num_ids - 1)]);
    keys[i] = first + i < num_ids ? key : 0;
    highest = max(highest, value_of(keys[i]));
  }
  highest = block_max(highest, partials + 2 * num_waves());
  const float scale = inverse_temperatures[block_x()];
  float weight = 0.0f;
#pragma unroll
  for (u32 i = 0; i < ITEMS; ++i) {
    if (keys[i] != 0) weight += exp((value_of(keys[i]) - highest) * scale);
  }
  const u32 least = threshold(keys, k, partials);
  write_choice(keys, least, k, choice_at(choices, out, num_segments, k), counts, [first](u32 i) { return first + i; });
  // The threshold's last turn may have used either half of its sums; the third one is free since.
  const float total = block_sum(weight, partials + 2 * num_waves());
  if (num_segments == 1) {
    write_total(out, k, total);
  } else if (thread() == 0) {
    float* segment = stats + (u64(block_x()) * num_segments + block_y()) * 2;
    segment[0] = highest;
    segment[1] = total;
  }
}
GK_EXPORT(top_of_logits)

// Chooses the k highest of a row's choices, `num_from` times k of them, `num_stats` segments of logits having had weights.
// Blocks, `out` and shared memory as of top_of_logits.
GK_KERNEL top_of_choices(const float* from, const float* inverse_temperatures, float* choices, const float* stats, u32* out,
                         u32 num_from, u32 num_stats, u32 num_segments, u32 k) {
  Shared shared;
  u32* counts = shared.take<u32>(num_threads() + 1);
  float* partials = shared.take<float>(3 * num_waves());
  const u32 num_values = num_from * k;
  const float* row = from + u64(block_x()) * 2 * num_values;
  const u32 first = (block_y() * num_threads() + thread()) * ITEMS;
  u32 keys[ITEMS];
#pragma unroll
  for (u32 i = 0; i < ITEMS; ++i) {
    const u32 key = key_of(row[min(first + i, num_values - 1)]);
    keys[i] = first + i < num_values ? key : 0;
  }
  const u32 least = threshold(keys, k, partials);
  write_choice(keys, least, k, choice_at(choices, out, num_segments, k), counts, [row, first, num_values](u32 i) {
    return float_to_bits(row[num_values + first + i]);
  });
  if (num_segments > 1) return;
  const float* segments = stats + u64(block_x()) * num_stats * 2;
  float highest = neg_infinity();
  for (u32 i = thread(); i < num_stats; i += num_threads()) highest = max(highest, segments[2 * i]);
  highest = block_max(highest, partials);
  const float scale = inverse_temperatures[block_x()];
  float weight = 0.0f;
  for (u32 i = thread(); i < num_stats; i += num_threads()) {
    if (segments[2 * i + 1] > 0.0f) weight += segments[2 * i + 1] * exp((segments[2 * i] - highest) * scale);
  }
  write_total(out, k, block_sum(weight, partials + num_waves()));
}
GK_EXPORT(top_of_choices)

}  // namespace gk
