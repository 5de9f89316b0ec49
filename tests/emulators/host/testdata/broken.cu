// Kernels with one mistake each: what the host ring must find.
#include "tile.h"

namespace gk {

// Half of the threads do not come to the barrier.
GK_KERNEL divergent_barrier(u32* out) {
  if (thread() % 2 == 0) sync();
  out[thread()] = thread();
}
GK_EXPORT(divergent_barrier)

// One thread waits for the block, the others of its wave for the wave.
GK_KERNEL barrier_beside_collective(float* out) {
  if (thread() == 0) {
    sync();
  } else {
    out[thread()] = wave_sum(1.0f);
  }
}
GK_EXPORT(barrier_beside_collective)

// Lanes of one wave are in different collectives.
GK_KERNEL different_collectives(float* out) { out[thread()] = thread() % 2 == 0 ? wave_sum(1.0f) : wave_max(1.0f); }
GK_EXPORT(different_collectives)

// One lane has ended before its wave's collective.
GK_KERNEL absent_lane(float* out) {
  if (thread() == 3) return;
  out[thread()] = wave_sum(1.0f);
}
GK_EXPORT(absent_lane)

GK_KERNEL too_much_shared_memory(float* out) {
  Shared shared;
  out[thread()] = shared.take<float>(64)[0];
}
GK_EXPORT(too_much_shared_memory)

GK_KERNEL past_shared_memory(float* out) {
  Shared shared;
  float* values = shared.take<float>(4);
  values[4] = 1.0f;
  out[thread()] = values[0];
}
GK_EXPORT(past_shared_memory)

GK_KERNEL misaligned_load(float* out) {
  const Vec16 vec = load_vec<Vec16>(out + 1);
  out[thread()] = bits_to_float(vec.words[0]);
}
GK_EXPORT(misaligned_load)

// As many bytes of local variables as there are of stack, in one thread: its neighbour would not survive more.
GK_KERNEL deep_stack(float* out) {
  if (thread() != 0) return;
  volatile float values[16384] = {};
  values[thread()] = 1.0f;
  out[thread()] = values[thread()];
}
GK_EXPORT(deep_stack)

// Shared memory that nobody has written.
GK_KERNEL unwritten_shared_memory(float* out) {
  Shared shared;
  out[thread()] = shared.take<float>(4)[0];
}
GK_EXPORT(unwritten_shared_memory)

// Copies `from`, a vector a thread, to shared memory and shows what is there once `wait` has been called.
template <class Wait>
GK_DEVICE void copy_through_shared(const float* from, float* out, Wait wait) {
  Shared shared;
  float* values = shared.take<float>(num_threads() * 4);
  copy_async16(values + thread() * 4, from + thread() * 4);
  copy_async_commit();
  copy_async_commit();
  wait();
  sync();
  for (u32 i = 0; i < 4; ++i) out[thread() * 4 + i] = values[thread() * 4 + i];
}

GK_KERNEL copy_with_wait(const float* from, float* out) {
  copy_through_shared(from, out, [] { copy_async_wait<1>(); });
}
GK_EXPORT(copy_with_wait)

GK_KERNEL copy_without_wait(const float* from, float* out) {
  copy_through_shared(from, out, [] {});
}
GK_EXPORT(copy_without_wait)

// Waits for all groups but the last two, and there are two.
GK_KERNEL copy_with_too_short_wait(const float* from, float* out) {
  copy_through_shared(from, out, [] { copy_async_wait<2>(); });
}
GK_EXPORT(copy_with_too_short_wait)

// The group is not closed, so that no wait is for it.
GK_KERNEL copy_without_commit(const float* from, float* out) {
  Shared shared;
  float* values = shared.take<float>(num_threads() * 4);
  copy_async16(values + thread() * 4, from + thread() * 4);
  copy_async_wait<0>();
  for (u32 i = 0; i < 4; ++i) out[thread() * 4 + i] = values[thread() * 4 + i];
}
GK_EXPORT(copy_without_commit)

// Every other thread copies, the others have nothing to copy.
GK_KERNEL copy_or_zero(const float* from, float* out) {
  Shared shared;
  float* values = shared.take<float>(num_threads() * 4);
  copy_async16_or_zero(values + thread() * 4, from + thread() * 4, thread() % 2 == 1);
  copy_async_commit();
  copy_async_wait<0>();
  for (u32 i = 0; i < 4; ++i) out[thread() * 4 + i] = values[thread() * 4 + i];
}
GK_EXPORT(copy_or_zero)

// A copy whose destination is no shared memory.
GK_KERNEL copy_to_global_memory(float* out) { copy_async16(out, out + 4); }
GK_EXPORT(copy_to_global_memory)

GK_KERNEL misaligned_copy(float* out) {
  Shared shared;
  copy_async16(shared.take<float>(4), out + 1);
}
GK_EXPORT(misaligned_copy)

// Every lane brings words of its own, also where two of them stand for the same row.
GK_KERNEL uneven_operand(float* out) {
  TileResult result;
  clear(result);
  TileOperand operand;
  for (u32 i = 0; i < OPERAND_WORDS; ++i) operand.words[i] = lane();
  mma(result, operand, operand);
  out[thread()] = result.values[0];
}
GK_EXPORT(uneven_operand)

// One element past its memory.
GK_KERNEL past_global_memory(float* out, u32 size) { out[size] = 1.0f; }
GK_EXPORT(past_global_memory)

}  // namespace gk
