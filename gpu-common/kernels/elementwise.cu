// Look-ups, sums and copies. One block per row unless said otherwise; threads share the columns.
#include "formats.h"

namespace gk {

namespace {

// out[t] = table[tokens[t]], scaled and rounded to bf16. A thread takes the values of 16 stored bytes.
template <Format F>
GK_DEVICE void embed(const u32* tokens, const u8* values, const float* scales, bf16* out, u32 n, u32 k, u32 row_bytes,
                     u32 group) {
  const Weights table{values, scales, n, k, row_bytes, group};
  const u32 row = tokens[block_x()];
  bf16* to = out + u64(block_x()) * k;
  for (u32 at = thread() * PER_VEC<F>; at < k; at += num_threads() * PER_VEC<F>) {
    float decoded[PER_VEC<F>];
    decode<F>(load_vec<Vec16>(table.values + u64(row) * row_bytes + u64(at) * 16 / PER_VEC<F>), decoded);
    const float scale = scale_at<F>(table, row, at) * row_scale<F>(table, row);
    for (u32 i = 0; i < PER_VEC<F> && at + i < k; ++i) to[at + i] = to_bf16(decoded[i] * scale);
  }
}

}  // namespace

#define GK_EMBED(name, format)                                                                                     \
  GK_KERNEL name(const u32* tokens, const u8* values, const float* scales, bf16* out, u32 n, u32 k, u32 row_bytes, \
                 u32 group) {                                                                                      \
    embed<format>(tokens, values, scales, out, n, k, row_bytes, group);                                            \
  }                                                                                                                \
  GK_EXPORT(name)

GK_EMBED(embed_f32, F32)
GK_EMBED(embed_bf16, BF16)
GK_EMBED(embed_fp8, FP8)
GK_EMBED(embed_int8, INT8)
GK_EMBED(embed_int4, INT4)

// out += x. Threads of the whole grid share the elements.
GK_KERNEL add(const bf16* x, bf16* out, u32 num_elements) {
  const u32 step = grid_x() * num_threads();
  for (u32 i = block_x() * num_threads() + thread(); i < num_elements; i += step) {
    out[i] = to_bf16(to_float(out[i]) + to_float(x[i]));
  }
}
GK_EXPORT(add)

// out[t] = [a[t], b[t]].
GK_KERNEL concat(const bf16* a, const bf16* b, bf16* out, u32 a_cols, u32 b_cols) {
  bf16* to = out + u64(block_x()) * (a_cols + b_cols);
  for (u32 i = thread(); i < a_cols; i += num_threads()) to[i] = a[u64(block_x()) * a_cols + i];
  for (u32 i = thread(); i < b_cols; i += num_threads()) to[a_cols + i] = b[u64(block_x()) * b_cols + i];
}
GK_EXPORT(concat)

// out[i] = x[rows[i]].
GK_KERNEL gather_rows(const bf16* x, const u32* rows, bf16* out, u32 cols) {
  const bf16* from = x + u64(rows[block_x()]) * cols;
  for (u32 i = thread(); i < cols; i += num_threads()) out[u64(block_x()) * cols + i] = from[i];
}
GK_EXPORT(gather_rows)

// Copies rows of `cols` elements to rows of `stride` and fills up with zeros: what products ask of their input.
GK_KERNEL pad_rows(const bf16* x, bf16* out, u32 cols, u32 stride) {
  const bf16* from = x + u64(block_x()) * cols;
  bf16* to = out + u64(block_x()) * stride;
  for (u32 i = thread(); i < stride; i += num_threads()) to[i] = i < cols ? from[i] : bf16{0};
}
GK_EXPORT(pad_rows)

}  // namespace gk
