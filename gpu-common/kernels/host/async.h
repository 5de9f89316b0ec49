// Hopper's asynchronous machinery for one block of fibers (hopper.h has the operations).
//
// The model is the meaning that the PTX ISA documents, at its worst: a copy happens when nobody else can go on, or at
// once, by the block's order; its destination is NaN from the moment it is asked for. A product reads its operands when its
// wave waits for it, and its results are NaN until then. Waves of a warpgroup need not run side by side, but must have
// queued the same products when the block ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace gk_host {

class Block;
struct Site;

// What an emulated driver writes into a tensor map: a matrix of bytes, and the boxes that are copied of it. The same
// words are in tests/emulators/cuda/src/tensor_map.rs.
struct BoxSource {
  static constexpr std::uint64_t MAGIC = 0x70616d726f736e74;
  std::uint64_t magic, address, cols, rows, row_bytes;
  std::uint64_t box_cols, box_rows;
  std::uint64_t reserved[9];
};
static_assert(sizeof(BoxSource) == 128, "the size of a tensor map");

class Async {
 public:
  static constexpr std::uint32_t NUM_VALUES = 64;

  void prepare(std::uint32_t num_threads, std::uint32_t order);

  void init_barrier(Block& block, std::uint32_t address, std::uint32_t count);
  void fence_barriers(Block& block);
  void arrive(Block& block, std::uint32_t address, std::uint32_t num_expected_bytes);
  void wait(Block& block, std::uint32_t address, std::uint32_t parity, Site site);
  void copy_box(Block& block, std::uint32_t to, const void* map, std::int32_t col, std::int32_t row,
                std::uint32_t barrier);

  void fence_products(Block& block);
  void multiply(Block& block, float* results, std::uint64_t a, std::uint64_t b, bool adds);
  void commit_products(Block& block);
  void wait_products(Block& block);

  // Lets one copy happen; false where there is none.
  bool complete_one(Block& block);
  // Who waits for barriers, for a message.
  std::string waiting() const;
  // What is wrong with how the block ended, if anything.
  std::string unfinished() const;

 private:
  struct Barrier {
    std::uint32_t address, count, pending;
    std::int64_t num_bytes = 0;
    std::uint32_t parity = 0, owner = 0;
    bool is_known = false;
  };
  struct Waiter {
    std::uint32_t thread, barrier, parity;
  };
  struct Copy {
    std::uint32_t to, barrier;
    BoxSource source;
    std::int32_t col, row;
  };
  struct Product {
    float* results;
    std::uint64_t a, b;
    bool adds, is_committed;
    bool operator==(const Product& other) const { return a == other.a && b == other.b && adds == other.adds; }
  };
  // What one thread has queued, and what its results held before.
  struct Lane {
    std::vector<Product> products;
    float before[NUM_VALUES];
    bool is_fenced = false;
  };

  Barrier& barrier(Block& block, std::uint32_t address);
  void complete_phase(Block& block, Barrier& barrier);
  void complete(Block& block, const Copy& copy);
  void run_products(Block& block, Lane* const* lanes, std::uint32_t wave);
  void check_warpgroup(Block& block, const std::vector<Product>& products, std::uint32_t wave);

  bool copies_at_once_ = false, newest_first_ = false;
  std::vector<Barrier> barriers_;
  std::vector<Waiter> waiters_;
  std::deque<Copy> copies_;
  std::vector<Lane> lanes_;
  // Products of each warpgroup in the order in which its first wave came to them, and how many each wave has run.
  std::vector<std::vector<Product>> queued_;
  std::vector<std::size_t> num_run_;
};

// 32 e4m3 codes of one row of an operand: values, and exponents as they are stored.
struct ProductRow {
  float values[32];
  std::int16_t exponents[32];
};
ProductRow product_row(const unsigned char* codes);

// The sum of 32 products and an accumulator as Hopper's tensor cores make it: every term is cut to 13 bits behind the
// leading one of the largest, and so is the sum (Khattak and Mikaitis, arXiv 2512.07004).
float sum_of_products(const ProductRow& a, const ProductRow& b, float accumulator);

}  // namespace gk_host
