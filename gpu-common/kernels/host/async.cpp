#include "async.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "block.h"

namespace gk_host {

namespace {

constexpr std::uint32_t WAVE = 32, WAVES_PER_WARPGROUP = 4;
constexpr std::uint32_t ROW_BYTES = 128, PATTERN_BYTES = 1024, CHUNK_BYTES = 16;
constexpr std::int64_t MAX_BARRIER_BYTES = (1 << 20) - 1;
constexpr unsigned char POISON = 0xff;

// Chunks of 16 bytes change places within 128, by the row of the pattern.
std::uint32_t swizzled(std::uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

}  // namespace

void Async::prepare(std::uint32_t num_threads, std::uint32_t order) {
  copies_at_once_ = order % 2 == 1;
  newest_first_ = order % 4 == 2;
  barriers_.clear();
  waiters_.clear();
  copies_.clear();
  lanes_.resize(num_threads);
  for (Lane& lane : lanes_) lane.products.clear(), lane.is_fenced = false;
  queued_.assign(num_threads / (WAVE * WAVES_PER_WARPGROUP) + 1, {});
  num_run_.assign(num_threads / WAVE + 1, 0);
}

Async::Barrier& Async::barrier(Block& block, std::uint32_t address) {
  for (Barrier& barrier : barriers_) {
    if (barrier.address == address) return barrier;
  }
  block.fail(STATUS_ASYNC, "no barrier was initialised at shared address " + std::to_string(address));
}

void Async::init_barrier(Block& block, std::uint32_t address, std::uint32_t count) {
  const bool is_there = std::any_of(barriers_.begin(), barriers_.end(), [&](const Barrier& b) { return b.address == address; });
  if (is_there || count == 0 || address % 8 != 0) {
    block.fail(STATUS_ASYNC, "a barrier for " + std::to_string(count) + " at shared address " + std::to_string(address) +
                                 ": initialised twice, for nobody, or not aligned to 8 bytes");
  }
  // The object is opaque; its eight bytes must be the block's own.
  std::memset(block.at_shared_address(address, 8), 0, 8);
  barriers_.push_back({address, count, count, 0, 0, block.thread(), false});
}

void Async::fence_barriers(Block& block) {
  for (Barrier& barrier : barriers_) barrier.is_known |= barrier.owner == block.thread();
}

void Async::complete_phase(Block& block, Barrier& barrier) {
  if (barrier.pending != 0 || barrier.num_bytes != 0) return;
  const std::uint32_t parity = barrier.parity;
  barrier.parity ^= 1;
  barrier.pending = barrier.count;
  const auto is_met = [&](const Waiter& waiter) { return waiter.barrier == barrier.address && waiter.parity == parity; };
  for (const Waiter& waiter : waiters_) {
    if (is_met(waiter)) block.unpark(waiter.thread);
  }
  waiters_.erase(std::remove_if(waiters_.begin(), waiters_.end(), is_met), waiters_.end());
}

void Async::arrive(Block& block, std::uint32_t address, std::uint32_t num_expected_bytes) {
  Barrier& met = barrier(block, address);
  met.num_bytes += num_expected_bytes;
  if (met.num_bytes > MAX_BARRIER_BYTES) {
    block.fail(STATUS_ASYNC, "a barrier is to expect " + std::to_string(met.num_bytes) + " bytes");
  }
  if (met.pending == 0) block.fail(STATUS_ASYNC, "more arrive at a barrier than the " + std::to_string(met.count) + " it is for");
  --met.pending;
  complete_phase(block, met);
}

void Async::wait(Block& block, std::uint32_t address, std::uint32_t parity, Site site) {
  if (block.is_skipped(site)) return;
  // Others may have gone on since this thread was woken.
  while (barrier(block, address).parity == parity) {
    waiters_.push_back({block.thread(), address, parity});
    block.park();
  }
}

void Async::copy_box(Block& block, std::uint32_t to, const void* map, std::int32_t col, std::int32_t row,
                     std::uint32_t address) {
  Copy copy{to, address, {}, col, row};
  std::memcpy(&copy.source, map, sizeof copy.source);
  if (copy.source.magic != BoxSource::MAGIC) block.fail(STATUS_ASYNC, "a box of something that no driver has described");
  if (to % PATTERN_BYTES != 0) {
    block.fail(STATUS_ASYNC, "a box to shared address " + std::to_string(to) + ", inside the swizzle's pattern");
  }
  if (!barrier(block, address).is_known) block.fail(STATUS_ASYNC, "a copy with a barrier that the copy engine may not know yet");
  std::memset(block.at_shared_address(to, copy.source.box_rows * ROW_BYTES), POISON, copy.source.box_rows * ROW_BYTES);
  copies_.push_back(copy);
  if (copies_at_once_) complete_one(block);
}

bool Async::complete_one(Block& block) {
  if (copies_.empty()) return false;
  const Copy copy = newest_first_ ? copies_.back() : copies_.front();
  newest_first_ ? copies_.pop_back() : copies_.pop_front();
  complete(block, copy);
  return true;
}

void Async::complete(Block& block, const Copy& copy) {
  const BoxSource& source = copy.source;
  for (std::uint32_t r = 0; r < source.box_rows; ++r) {
    for (std::uint32_t c = 0; c < source.box_cols; ++c) {
      const std::int64_t row = std::int64_t(copy.row) + r, col = std::int64_t(copy.col) + c;
      const bool is_inside = row >= 0 && col >= 0 && row < std::int64_t(source.rows) && col < std::int64_t(source.cols);
      const auto* from = reinterpret_cast<const unsigned char*>(source.address + row * source.row_bytes + col);
      *block.at_shared_address(swizzled(copy.to + r * ROW_BYTES + c), 1) = is_inside ? *from : 0;
    }
  }
  Barrier& met = barrier(block, copy.barrier);
  met.num_bytes -= std::int64_t(source.box_rows * source.box_cols);
  if (met.num_bytes < -MAX_BARRIER_BYTES) block.fail(STATUS_ASYNC, "a barrier gets bytes that nobody expects");
  complete_phase(block, met);
}

void Async::fence_products(Block& block) { lanes_[block.thread()].is_fenced = true; }

void Async::multiply(Block& block, float* results, std::uint64_t a, std::uint64_t b, bool adds) {
  Lane& lane = lanes_[block.thread()];
  if (!lane.is_fenced) block.fail(STATUS_ASYNC, "a product without a fence before it");
  if (lane.products.empty()) {
    std::memcpy(lane.before, results, sizeof lane.before);
    std::memset(results, POISON, sizeof lane.before);
  } else if (lane.products.front().results != results) {
    block.fail(STATUS_ASYNC, "products with different results under way: the model has one at a time");
  }
  lane.products.push_back({results, a, b, adds, false});
}

void Async::commit_products(Block& block) {
  for (Product& product : lanes_[block.thread()].products) product.is_committed = true;
}

void Async::wait_products(Block& block) {
  Lane* mine = &lanes_[block.thread()];
  struct Nothing {};
  exchange<Nothing>("wait for products", mine, [&](Lane* const* lanes, Nothing&) {
    run_products(block, lanes, block.thread() / WAVE);
  });
}

void Async::check_warpgroup(Block& block, const std::vector<Product>& products, std::uint32_t wave) {
  std::vector<Product>& queued = queued_[wave / WAVES_PER_WARPGROUP];
  for (const Product& product : products) {
    const std::size_t at = num_run_[wave]++;
    if (at == queued.size()) queued.push_back(product);
    if (!(queued[at] == product)) block.fail(STATUS_DIVERGENCE, "waves of a warpgroup queue different products");
  }
}

// Rows of the product that belong to one wave, for all its lanes.
void Async::run_products(Block& block, Lane* const* lanes, std::uint32_t wave) {
  const std::vector<Product>& products = lanes[0]->products;
  for (std::uint32_t l = 0; l < WAVE; ++l) {
    const bool is_same = lanes[l]->products == products;
    const bool is_committed = std::all_of(lanes[l]->products.begin(), lanes[l]->products.end(), [](const Product& p) { return p.is_committed; });
    if (!is_same) block.fail(STATUS_DIVERGENCE, "lanes of a wave queue different products");
    if (!is_committed) block.fail(STATUS_ASYNC, "products are waited for that were not committed");
    const float* results = products.empty() ? nullptr : lanes[l]->products.front().results;
    if (results != nullptr && !std::all_of(results, results + NUM_VALUES, [](float value) { return std::isnan(value); })) {
      block.fail(STATUS_ASYNC, "results were written while their product was under way");
    }
  }
  check_warpgroup(block, products, wave);
  const auto operand = [&](std::uint64_t descriptor, std::uint32_t row) {
    constexpr std::uint64_t SWIZZLE_128_BYTES = 1;
    if (descriptor >> 62 != SWIZZLE_128_BYTES || (descriptor >> 49 & 7) != 0) {
      block.fail(STATUS_ASYNC, "an operand that is not swizzled over 128 bytes");
    }
    const std::uint32_t start = std::uint32_t(descriptor & 0x3fff) << 4, stride = std::uint32_t(descriptor >> 32 & 0x3fff) << 4;
    unsigned char codes[2 * CHUNK_BYTES];
    for (std::uint32_t chunk = 0; chunk < 2; ++chunk) {
      const std::uint32_t address = start + row / 8 * stride + row % 8 * ROW_BYTES + chunk * CHUNK_BYTES;
      std::memcpy(codes + chunk * CHUNK_BYTES, block.at_shared_address(swizzled(address), CHUNK_BYTES), CHUNK_BYTES);
    }
    return product_row(codes);
  };
  for (std::size_t p = 0; p < products.size(); ++p) {
    ProductRow a[16], b[128];
    for (std::uint32_t row = 0; row < 16; ++row) a[row] = operand(products[p].a, wave % WAVES_PER_WARPGROUP * 16 + row);
    for (std::uint32_t col = 0; col < 128; ++col) b[col] = operand(products[p].b, col);
    for (std::uint32_t l = 0; l < WAVE; ++l) {
      float* values = lanes[l]->before;
      for (std::uint32_t i = 0; i < NUM_VALUES; ++i) {
        const std::uint32_t row = l / 4 + i / 2 % 2 * 8, col = i / 4 * 8 + l % 4 * 2 + i % 2;
        values[i] = sum_of_products(a[row], b[col], products[p].adds ? values[i] : 0.0f);
      }
    }
  }
  for (std::uint32_t l = 0; l < WAVE; ++l) {
    Lane& lane = *lanes[l];
    if (!lane.products.empty()) std::memcpy(lane.products.front().results, lane.before, sizeof lane.before);
    lane.is_fenced = false;
  }
  for (std::uint32_t l = 0; l < WAVE; ++l) lanes[l]->products.clear();
}

std::string Async::waiting() const {
  std::string text;
  for (const Waiter& waiter : waiters_) {
    const auto found = std::find_if(barriers_.begin(), barriers_.end(), [&](const Barrier& b) { return b.address == waiter.barrier; });
    text += ", thread " + std::to_string(waiter.thread) + " for a barrier with " + std::to_string(found->pending) +
            " arrivals and " + std::to_string(found->num_bytes) + " bytes to come";
    if (text.size() > 400) return text + " …";
  }
  return text;
}

std::string Async::unfinished() const {
  if (!copies_.empty()) return "copies into shared memory were under way when the block ended";
  for (std::size_t wave = 0; wave < num_run_.size(); ++wave) {
    const std::size_t num_queued = queued_[wave / WAVES_PER_WARPGROUP].size();
    if (num_run_[wave] != num_queued) {
      return "wave " + std::to_string(wave) + " ran " + std::to_string(num_run_[wave]) + " products, another of its warpgroup " + std::to_string(num_queued);
    }
  }
  for (const Lane& lane : lanes_) {
    if (!lane.products.empty()) return "products were queued and never waited for";
  }
  return "";
}

namespace {

constexpr std::int32_t FRACTION_BITS = 13;
// The exponent of zero: below that of any sum.
constexpr std::int16_t NO_EXPONENT = -500;

float power_of_two(std::int32_t exponent) { return std::ldexp(1.0f, exponent); }

}  // namespace

ProductRow product_row(const unsigned char* codes) {
  ProductRow row;
  for (std::uint32_t k = 0; k < 32; ++k) {
    const std::int32_t exponent = codes[k] >> 3 & 15, mantissa = codes[k] & 7;
    const float magnitude = exponent == 0 ? mantissa * 0x1p-9f : (8 + mantissa) * power_of_two(exponent - 10);
    row.values[k] = codes[k] & 0x80 ? -magnitude : magnitude;
    row.exponents[k] = std::int16_t(magnitude == 0.0f ? NO_EXPONENT : std::max(exponent, 1) - 7);
    if ((codes[k] & 0x7f) == 0x7f) row.values[k] = std::numeric_limits<float>::quiet_NaN();
  }
  return row;
}

float sum_of_products(const ProductRow& a, const ProductRow& b, float accumulator) {
  std::int16_t largest = NO_EXPONENT;
  float check = accumulator;
  for (std::uint32_t k = 0; k < 32; ++k) largest = std::max(largest, std::int16_t(a.exponents[k] + b.exponents[k]));
  for (std::uint32_t k = 0; k < 32; ++k) check += a.values[k] * b.values[k];
  if (!std::isfinite(check)) return check;
  std::int32_t leading = accumulator == 0.0f ? std::int32_t(largest) : std::max(std::int32_t(largest), std::ilogb(accumulator));
  if (leading <= NO_EXPONENT) return 0.0f;
  // Whole numbers are what is kept; converting to integers cuts towards zero.
  const float scale = power_of_two(FRACTION_BITS - leading);
  std::int32_t sum = std::int32_t(accumulator * scale);
  for (std::uint32_t k = 0; k < 32; ++k) sum += std::int32_t(a.values[k] * b.values[k] * scale);
  std::uint32_t magnitude = std::uint32_t(std::abs(sum));
  std::uint32_t excess = 0;
  while (magnitude >> excess >> (FRACTION_BITS + 1) != 0) ++excess;
  magnitude = magnitude >> excess << excess;
  return std::copysign(float(magnitude), float(sum)) * power_of_two(leading - FRACTION_BITS);
}

}  // namespace gk_host
