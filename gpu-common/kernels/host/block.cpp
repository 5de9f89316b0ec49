#include "block.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace gk_host {

thread_local Block* block = nullptr;
thread_local Barriers barriers;

namespace {

// What unwritten memory holds: NaN in every floating-point format of the kernels.
constexpr unsigned char POISON = 0xff;
// Kept behind shared memory and at the far end of every stack, and checked when a block ends.
constexpr unsigned char GUARD = 0xa5;
constexpr std::size_t GUARD_BYTES = 64;
constexpr std::size_t STACK_BYTES = 64 << 10;
// Of one asynchronous copy.
constexpr std::size_t COPY_BYTES = 16;

// Where the window of shared memory begins, as instructions count: kernels that need more than 16 bytes of alignment see to
// it themselves.
constexpr std::uint32_t SHARED_WINDOW = 1040;

// The order in which threads start: ascending, descending, or one of many shuffles.
std::vector<std::uint32_t> starting_order(std::uint32_t num_threads, std::uint32_t order) {
  std::vector<std::uint32_t> threads(num_threads);
  std::iota(threads.begin(), threads.end(), 0u);
  if (order == 1) std::reverse(threads.begin(), threads.end());
  if (order > 1) {
    std::uint32_t state = order * 2654435761u;
    for (std::uint32_t i = num_threads - 1; i > 0; --i) {
      state = state * 1664525u + 1013904223u;
      std::swap(threads[i], threads[(state >> 8) % (i + 1)]);
    }
  }
  return threads;
}

bool is_guard(const unsigned char* bytes) {
  static const std::vector<unsigned char> whole(GUARD_BYTES, GUARD);
  return std::memcmp(bytes, whole.data(), GUARD_BYTES) == 0;
}

}  // namespace

Status Block::run(Dim3 index, Dim3 grid, std::uint32_t num_threads, std::uint32_t wave_size, std::uint32_t shared_bytes,
                  std::uint32_t order, void (*kernel)(void**), void** args) {
  index_ = index;
  grid_ = grid;
  num_threads_ = num_live_ = num_threads;
  wave_size_ = wave_size;
  wave_shift_ = std::uint32_t(__builtin_ctz(wave_size));
  kernel_ = kernel;
  args_ = args;
  status_ = STATUS_OK;
  prepare(shared_bytes, order);
  Block* const outer = block;
  block = this;
  current_ = pop_ready();
  switch_fiber(launcher_, fibers_[current_]);
  block = outer;
  if (status_ == STATUS_OK) check_guards();
  return status_;
}

void Block::prepare(std::uint32_t shared_bytes, std::uint32_t order) {
  if (fibers_.size() < num_threads_) {
    fibers_.resize(num_threads_);
    stacks_.resize((num_threads_ + 1) * STACK_BYTES);
  }
  const std::vector<std::uint32_t> threads = starting_order(num_threads_, order);
  for (std::uint32_t thread = 0; thread < num_threads_; ++thread) {
    unsigned char* stack = stack_of(thread);
    std::memset(stack, GUARD, GUARD_BYTES);
    make_fiber(fibers_[thread], stack, STACK_BYTES, run_thread);
  }
  ready_ = threads;
  ready_first_ = 0;
  last_goes_first_ = order % 2 == 1;
  num_ready_ = num_threads_;
  at_barrier_.clear();
  waves_.resize(num_threads_ / wave_size_);
  for (Wave& wave : waves_) {
    wave.num_arrived = 0;
    wave.waiting.clear();
  }
  copies_.resize(num_threads_);
  for (Copies& copies : copies_) {
    copies.copies.clear();
    copies.group_ends.clear();
  }

  async_.prepare(num_threads_, order);
  shared_bytes_ = shared_bytes;
  shared_.resize(shared_bytes + GUARD_BYTES);
  std::memset(shared_.data(), POISON, shared_bytes);
  std::memset(shared_.data() + shared_bytes, GUARD, GUARD_BYTES);
}

// The first stack is nobody's: what thread 0 writes past its own lands there.
unsigned char* Block::stack_of(std::uint32_t thread) { return stacks_.data() + (thread + 1) * STACK_BYTES; }

void Block::run_thread() {
  block->kernel_(block->args_);
  block->end_thread();
}

void Block::end_thread() {
  if (--num_live_ == 0) switch_fiber(fibers_[current_], launcher_);
  if (!at_barrier_.empty() && at_barrier_.size() == num_live_) release_block();
  switch_to_next();
}

bool Block::is_skipped(Site site) {
  const auto is_here = [&](const Site& other) {
    return site.line == other.line && std::strcmp(site.file, other.file) == 0;
  };
  // One thread of a block is enough to know where the block comes to.
  if (current_ == 0 && std::none_of(barriers.seen.begin(), barriers.seen.end(), is_here)) barriers.seen.push_back(site);
  return site.line == barriers.skipped_line && barriers.skipped_file == site.file;
}

void Block::sync(Site site) {
  if (is_skipped(site)) return;
  if (at_barrier_.size() + 1 == num_live_) {
    release_block();
  } else {
    at_barrier_.push_back(current_);
    switch_to_next();
  }
}

void Block::release_block() {
  for (std::uint32_t thread : at_barrier_) push_ready(thread);
  at_barrier_.clear();
}

void Block::fail_divergence(const char* what, const char* others) {
  fail(STATUS_DIVERGENCE,
       "thread " + std::to_string(current_) + " is in a " + what + " while lanes of its wave are in a " + others);
}

void Block::wait_for_async() {
  while (num_ready_ == 0) {
    if (!async_.complete_one(*this)) fail_deadlock();
  }
}

unsigned char* Block::shared_memory(std::uint32_t start, std::uint32_t end) {
  if (end > shared_bytes_) {
    fail(STATUS_SHARED_MEMORY, "the kernel takes " + std::to_string(end) + " bytes of shared memory, the launch gave " +
                                   std::to_string(shared_bytes_));
  }
  return shared_.data() + start;
}

void Block::start_copy(void* to, const void* from) {
  check_alignment(to, COPY_BYTES);
  check_alignment(from, COPY_BYTES);
  const auto start = reinterpret_cast<std::uintptr_t>(shared_.data()), at = reinterpret_cast<std::uintptr_t>(to);
  if (at < start || at + COPY_BYTES > start + shared_bytes_) {
    fail(STATUS_SHARED_MEMORY, "thread " + std::to_string(current_) + " copies asynchronously to what is not among the " +
                                   std::to_string(shared_bytes_) + " bytes of shared memory");
  }
  std::memset(to, POISON, COPY_BYTES);
  copies_[current_].copies.push_back({static_cast<unsigned char*>(to), from});
}

void Block::commit_copies() { copies_[current_].group_ends.push_back(copies_[current_].copies.size()); }

void Block::wait_for_copies(std::uint32_t num_under_way) {
  auto& [copies, group_ends] = copies_[current_];
  if (group_ends.size() <= num_under_way) return;
  const std::size_t num_groups = group_ends.size() - num_under_way, num_copies = group_ends[num_groups - 1];
  for (std::size_t i = 0; i < num_copies; ++i) {
    if (copies[i].from == nullptr) {
      std::memset(copies[i].to, 0, COPY_BYTES);
    } else {
      std::memcpy(copies[i].to, copies[i].from, COPY_BYTES);
    }
  }
  copies.erase(copies.begin(), copies.begin() + std::ptrdiff_t(num_copies));
  group_ends.erase(group_ends.begin(), group_ends.begin() + std::ptrdiff_t(num_groups));
  for (std::size_t& end : group_ends) end -= num_copies;
}

std::uint32_t Block::shared_address(const void* place) const {
  return SHARED_WINDOW + std::uint32_t(static_cast<const unsigned char*>(place) - shared_.data());
}

unsigned char* Block::at_shared_address(std::uint32_t address, std::uint32_t num_bytes) {
  const std::uint32_t start = address - SHARED_WINDOW;
  if (address < SHARED_WINDOW || start > shared_bytes_ || num_bytes > shared_bytes_ - start) {
    fail(STATUS_SHARED_MEMORY, std::to_string(num_bytes) + " bytes at shared address " + std::to_string(address) +
                                   ", which holds " + std::to_string(shared_bytes_) + " from " +
                                   std::to_string(SHARED_WINDOW));
  }
  return shared_.data() + start;
}

void Block::fail(Status status, std::string message) {
  status_ = status;
  message_ = std::move(message);
  switch_fiber(fibers_[current_], launcher_);
  // Nobody switches back: the block is over.
  __builtin_unreachable();
}

void Block::fail_misaligned(const void* address, std::size_t alignment) {
  fail(STATUS_MISALIGNED, "thread " + std::to_string(current_) + " accesses an address that is " +
                              std::to_string(reinterpret_cast<std::uintptr_t>(address) % alignment) +
                              " past a multiple of " + std::to_string(alignment));
}

void Block::fail_deadlock() {
  std::string message = std::to_string(num_live_) + " of " + std::to_string(num_threads_) +
                        " threads have not ended, " + std::to_string(at_barrier_.size()) +
                        " wait at the block's barrier";
  for (std::size_t i = 0; i < waves_.size(); ++i) {
    if (waves_[i].waiting.empty()) continue;
    message +=
        ", " + std::to_string(waves_[i].waiting.size()) + " of wave " + std::to_string(i) + " in a " + waves_[i].what;
  }
  fail(STATUS_DEADLOCK, message + async_.waiting());
}

// Runs on the launcher's own stack.
void Block::check_guards() {
  message_ = async_.unfinished();
  if (!message_.empty()) status_ = STATUS_ASYNC;
  if (!is_guard(shared_.data() + shared_bytes_)) {
    status_ = STATUS_SHARED_MEMORY;
    message_ = "the kernel wrote past its " + std::to_string(shared_bytes_) + " bytes of shared memory";
  }
  for (std::uint32_t thread = 0; thread < num_threads_; ++thread) {
    if (is_guard(stack_of(thread))) continue;
    status_ = STATUS_STACK_OVERFLOW;
    message_ =
        "thread " + std::to_string(thread) + " used its whole stack of " + std::to_string(STACK_BYTES) + " bytes";
  }
}

}  // namespace gk_host
