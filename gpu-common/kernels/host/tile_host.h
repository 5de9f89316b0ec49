// Tile products of the host: the wave's operands are gathered and multiplied. Included by tile.h only.
#pragma once

namespace gk {

template <u32 LENGTH, class T>
LongOperand<LENGTH> load_left(const T* from, u32 stride) {
  LongOperand<LENGTH> operand;
  for (u32 i = 0; i < LENGTH * OPERAND_WORDS; ++i) {
    const u32 row = Layout::left_row(lane(), i), byte = Layout::template left_byte<LENGTH>(lane(), i);
    operand.words[i] = load_vec<u32>(from + row * stride + byte / sizeof(T));
  }
  return operand;
}

template <u32 LENGTH, class T>
LongOperand<LENGTH> load_right(const T* from, u32 stride) {
  LongOperand<LENGTH> operand;
  for (u32 i = 0; i < LENGTH * OPERAND_WORDS; ++i) {
    const u32 col = Layout::right_col(lane(), i), byte = Layout::template right_byte<LENGTH>(lane(), i);
    operand.words[i] = load_vec<u32>(from + col * stride + byte / sizeof(T));
  }
  return operand;
}

template <u32 LENGTH>
LongOperand<LENGTH> load_right_by_k(const bf16* from, u32 stride) {
  LongOperand<LENGTH> operand;
  for (u32 i = 0; i < LENGTH * OPERAND_WORDS; ++i) {
    const u32 k = Layout::template right_byte<LENGTH>(lane(), i) / 2;
    const bf16* first = from + k * stride + Layout::right_col(lane(), i);
    operand.words[i] = pack(first[0], first[stride]);
  }
  return operand;
}

// What a lane gives to a tile product.
template <u32 LENGTH>
struct TileLane {
  LongOperand<LENGTH> left, right;
};

// Values of a row of a tile, in one register of a host that has such wide ones.
template <class T>
using TileRow __attribute__((vector_size(TILE * sizeof(T)))) = T;

// What the lanes of a wave hold of both operands, put together. Where lanes hold the same, it has to be the same. A word
// holds N values, which `decode` writes to the second argument.
template <class T, u32 K>
struct WholeOperands {
  T left[TILE][K];
  alignas(TILE * sizeof(T)) T right[K][TILE];

  template <u32 LENGTH, u32 N, class Decode>
  void gather(const TileLane<LENGTH>* lanes, Decode decode) {
    constexpr u32 WORDS = K / N;
    u32 left_words[TILE][WORDS], right_words[WORDS][TILE];
    for (u32 l = 0; l < WAVE; ++l) {
      for (u32 i = 0; i < LENGTH * OPERAND_WORDS; ++i) {
        left_words[Layout::left_row(l, i)][Layout::template left_byte<LENGTH>(l, i) / 4] = lanes[l].left.words[i];
        right_words[Layout::template right_byte<LENGTH>(l, i) / 4][Layout::right_col(l, i)] = lanes[l].right.words[i];
      }
      check_copy(lanes, l);
    }
    for (u32 row = 0; row < TILE; ++row) {
      for (u32 word = 0; word < WORDS; ++word) decode(left_words[row][word], &left[row][word * N]);
    }
    for (u32 word = 0; word < WORDS; ++word) {
      for (u32 col = 0; col < TILE; ++col) {
        T values[N];
        decode(right_words[word][col], values);
        for (u32 j = 0; j < N; ++j) right[word * N + j][col] = values[j];
      }
    }
  }

  template <u32 LENGTH>
  static void check_copy(const TileLane<LENGTH>* lanes, u32 lane) {
    if (Layout::NUM_COPIES == 1 || lane < TILE) return;
    if (std::memcmp(&lanes[lane], &lanes[lane - TILE], sizeof lanes[lane]) == 0) return;
    gk_host::block->fail(gk_host::STATUS_DIVERGENCE, "lanes that hold the same row of an operand hold different values");
  }
};

// Multiplies the operands of a whole wave: the documented meaning of the matrix instructions. Sums over k are of type T.
template <class T, u32 N, u32 LENGTH, class Decode>
void multiply_lanes(const TileLane<LENGTH>* lanes, T (&product)[TILE * TILE], Decode decode) {
  constexpr u32 K = LENGTH * OPERAND_BYTES / 4 * N;
  WholeOperands<T, K> operands;
  operands.template gather<LENGTH, N>(lanes, decode);
  // Sums wait for each other: several rows at a time keep the host busy.
  constexpr u32 ROWS = 8;
  for (u32 first = 0; first < TILE; first += ROWS) {
    TileRow<T> sums[ROWS] = {};
    for (u32 k = 0; k < K; ++k) {
      TileRow<T> right;
      std::memcpy(&right, operands.right[k], sizeof right);
      for (u32 i = 0; i < ROWS; ++i) sums[i] += operands.left[first + i][k] * right;
    }
    std::memcpy(&product[first * TILE], sums, sizeof sums);
  }
}

// The last lane to arrive multiplies.
template <u32 N, class T, u32 LENGTH, class Decode>
void mma_by_lanes(TileSums<T>& result, const LongOperand<LENGTH>& left, const LongOperand<LENGTH>& right, Decode decode) {
  using Product = T[TILE * TILE];
  using Lane = TileLane<LENGTH>;
  const auto multiply = [decode](const Lane* lanes, Product& product) { multiply_lanes<T, N>(lanes, product, decode); };
  const Product& product = gk_host::exchange<Product>("tile product", Lane{left, right}, multiply);
  for (u32 i = 0; i < RESULT_VALUES; ++i) result.values[i] += product[result_row(i) * TILE + result_col(i)];
}

template <u32 LENGTH>
void mma(TileResult& result, const LongOperand<LENGTH>& left, const LongOperand<LENGTH>& right) {
  static_assert(LENGTH == 1 || LENGTH == BF16_LENGTH, "a length that the device multiplies");
  mma_by_lanes<2>(result, left, right, [](u32 word, float* to) { to[0] = low_half(word), to[1] = high_half(word); });
}

template <u32 LENGTH>
void mma_e4m3(TileResult& result, const LongOperand<LENGTH>& left, const LongOperand<LENGTH>& right) {
  static_assert(LENGTH == 1 || LENGTH == FP8_LENGTH, "a length that the device multiplies");
  mma_by_lanes<4>(result, left, right, [](u32 word, float* to) { e4m3_to_floats(word, to); });
}

template <u32 LENGTH>
void mma_int8(TileSums<i32>& result, const LongOperand<LENGTH>& left, const LongOperand<LENGTH>& right) {
  static_assert(LENGTH == 1 || LENGTH == INT8_LENGTH, "a length that the device multiplies");
  mma_by_lanes<4>(result, left, right, [](u32 word, i32* to) {
    for (u32 i = 0; i < 4; ++i) to[i] = i8(word >> 8 * i & 0xffu);
  });
}

}  // namespace gk
