// The router's choice, from its logits. One wave per token; shared memory: 2 (E + groups) floats per wave.
#include "gk.h"

namespace gk {

namespace {

// Softmax of `values` in place, by one wave.
GK_DEVICE void softmax(float* values, u32 count) {
  float largest = neg_infinity();
  for (u32 i = lane(); i < count; i += WAVE) largest = max(largest, values[i]);
  largest = wave_max(largest);
  float sum = 0.0f;
  for (u32 i = lane(); i < count; i += WAVE) {
    values[i] = exp(values[i] - largest);
    sum += values[i];
  }
  sum = wave_sum(sum);
  for (u32 i = lane(); i < count; i += WAVE) values[i] /= sum;
}

// The best entry of `values`, by one wave; the lowest index on ties.
GK_DEVICE u32 best_of(const float* values, u32 count) {
  float best = neg_infinity();
  u32 index = 0xffffffffu;
  for (u32 i = lane(); i < count; i += WAVE) {
    if (index == 0xffffffffu || values[i] > best) {
      best = values[i];
      index = i;
    }
  }
  wave_best(best, index);
  return index;
}

// Sum of the two largest of a group, or the largest.
GK_DEVICE float group_score(const float* group, u32 size, bool of_two) {
  float first = neg_infinity(), second = neg_infinity();
  for (u32 i = 0; i < size; ++i) {
    if (group[i] > first) {
      second = first;
      first = group[i];
    } else if (group[i] > second) {
      second = group[i];
    }
  }
  return of_two && second != neg_infinity() ? first + second : first;
}

}  // namespace

// logits [T][E] to ids and weights [T][K], best choice first. `is_sigmoid`: scores are sigmoids, `bias` takes part in
// the choice, and a group counts by its two best; else scores are a softmax and a group counts by its best.
GK_KERNEL choose_experts(const float* logits, const float* bias, u32* ids, float* weights, u32 rows, u32 num_experts,
                         u32 top_k, u32 num_groups, u32 top_k_groups, u32 is_sigmoid, u32 normalise,
                         float scaling_factor) {
  Shared shared;
  const u32 floats_per_wave = 2 * (num_experts + num_groups);
  float* scores = shared.take<float>(num_waves() * floats_per_wave) + wave() * floats_per_wave;
  float* choice = scores + num_experts;
  float* group_scores = choice + num_experts;
  float* is_kept = group_scores + num_groups;
  const u32 row = block_x() * num_waves() + wave();
  if (row >= rows) return;

  for (u32 i = lane(); i < num_experts; i += WAVE) {
    const float logit = logits[u64(row) * num_experts + i];
    scores[i] = is_sigmoid != 0 ? sigmoid(logit) : logit;
  }
  // A lane goes over the same entries in every loop, so it waits only before it reads others' entries.
  if (is_sigmoid == 0) softmax(scores, num_experts);
  for (u32 i = lane(); i < num_experts; i += WAVE) choice[i] = scores[i] + (bias != nullptr ? bias[i] : 0.0f);
  wave_sync();
  if (num_groups > 1) {
    const u32 size = num_experts / num_groups;
    for (u32 group = lane(); group < num_groups; group += WAVE) {
      group_scores[group] = group_score(choice + group * size, size, is_sigmoid != 0);
      is_kept[group] = 0.0f;
    }
    for (u32 i = 0; i < top_k_groups; ++i) {
      const u32 best = best_of(group_scores, num_groups);
      if (lane() == 0) {
        group_scores[best] = neg_infinity();
        is_kept[best] = 1.0f;
      }
      wave_sync();
    }
    for (u32 i = lane(); i < num_experts; i += WAVE) {
      if (is_kept[i / size] == 0.0f) choice[i] = neg_infinity();
    }
  }
  float sum = 0.0f;
  for (u32 k = 0; k < top_k; ++k) {
    const u32 best = best_of(choice, num_experts);
    sum += scores[best];
    if (lane() == 0) {
      ids[u64(row) * top_k + k] = best;
      weights[u64(row) * top_k + k] = scores[best];
      choice[best] = neg_infinity();
    }
    wave_sync();
  }
  if (lane() != 0) return;
  // The lane reads back what it wrote itself.
  for (u32 k = 0; k < top_k; ++k) {
    float& weight = weights[u64(row) * top_k + k];
    if (normalise != 0) weight /= sum + 1e-20f;
    weight *= scaling_factor;
  }
}
GK_EXPORT(choose_experts)

}  // namespace gk
