// Hopper's asynchronous machinery with one mistake each: what the host's model must find. Blocks of 128 threads.
#include "hopper.h"

namespace gk {

constexpr u32 BOX_BYTES = 64 * SWIZZLE_BYTES;

// Room for one box, aligned, with a barrier behind it.
struct Stage {
  u8* box;
  u64* barrier;

  GK_DEVICE Stage() {
    Shared shared;
    u8* memory = shared.take<u8>(2 * BOX_BYTES);
    box = memory + (1024 - shared_address(memory) % 1024) % 1024;
    barrier = shared.take<u64>(1);
  }
};

template <bool IS_FENCED>
GK_DEVICE void init(const Stage& stage, u32 count) {
  if (thread() == 0) {
    init_barrier(stage.barrier, count);
    if (IS_FENCED) fence_barriers();
  }
  sync();
}

GK_KERNEL_OF(128) box_without_fence(const GK_BY_VALUE TensorMap map, float*) {
  const Stage stage;
  init<false>(stage, 1);
  if (thread() == 0) arrive_expecting(stage.barrier, BOX_BYTES), copy_box(stage.box, map, 0, 0, stage.barrier);
  wait(stage.barrier, 0);
}
GK_EXPORT(box_without_fence)

GK_KERNEL_OF(128) box_of_fewer_bytes(const GK_BY_VALUE TensorMap map, float*) {
  const Stage stage;
  init<true>(stage, 1);
  if (thread() == 0) arrive_expecting(stage.barrier, BOX_BYTES + 16), copy_box(stage.box, map, 0, 0, stage.barrier);
  wait(stage.barrier, 0);
}
GK_EXPORT(box_of_fewer_bytes)

GK_KERNEL_OF(128) box_inside_the_pattern(const GK_BY_VALUE TensorMap map, float*) {
  const Stage stage;
  init<true>(stage, 1);
  if (thread() == 0) arrive_expecting(stage.barrier, BOX_BYTES), copy_box(stage.box + 128, map, 0, 0, stage.barrier);
  wait(stage.barrier, 0);
}
GK_EXPORT(box_inside_the_pattern)

GK_KERNEL_OF(128) barrier_for_one_more(const GK_BY_VALUE TensorMap, float*) {
  const Stage stage;
  init<true>(stage, 129);
  arrive(stage.barrier);
  wait(stage.barrier, 0);
}
GK_EXPORT(barrier_for_one_more)

GK_KERNEL_OF(128) barrier_for_one_less(const GK_BY_VALUE TensorMap, float*) {
  const Stage stage;
  // 256 arrive at the first phase, which does not end for want of bytes.
  init<true>(stage, 255);
  arrive_expecting(stage.barrier, 16), arrive(stage.barrier);
}
GK_EXPORT(barrier_for_one_less)

template <bool IS_FENCED, bool IS_COMMITTED, bool IS_TOUCHED, bool IS_WAITED_FOR>
GK_DEVICE void multiply_badly(float* out) {
  const Stage stage;
  for (u32 i = thread(); i < 2 * BOX_BYTES - 1024; i += num_threads()) stage.box[i] = 0;
  sync();
  float products[PRODUCT_VALUES];
  if (IS_FENCED) fence_products();
  multiply(products, product_operand(stage.box), product_operand(stage.box), false);
  if (IS_TOUCHED) products[3] = 1.0f;
  if (IS_COMMITTED) commit_products();
  if (IS_WAITED_FOR) wait_products();
  out[thread()] = products[0];
}

GK_KERNEL_OF(128) product_without_fence(const GK_BY_VALUE TensorMap, float* out) {
  multiply_badly<false, true, false, true>(out);
}
GK_EXPORT(product_without_fence)

GK_KERNEL_OF(128) product_not_committed(const GK_BY_VALUE TensorMap, float* out) {
  multiply_badly<true, false, false, true>(out);
}
GK_EXPORT(product_not_committed)

GK_KERNEL_OF(128) product_touched(const GK_BY_VALUE TensorMap, float* out) {
  multiply_badly<true, true, true, true>(out);
}
GK_EXPORT(product_touched)

GK_KERNEL_OF(128) product_never_waited_for(const GK_BY_VALUE TensorMap, float* out) {
  multiply_badly<true, true, false, false>(out);
}
GK_EXPORT(product_never_waited_for)

}  // namespace gk
