// One block of GPU threads as fibers: who runs next, who waits for whom, what they share.
//
// A fiber runs until it waits or ends; then the longest ready one goes on, or, in odd orders, the one that became ready
// last, so that one wave runs ahead of the others as far as barriers let it. Whoever arrives last at a barrier or at a
// collective makes the others ready. If nobody is ready while some are alive, the kernel can never end: that is
// reported, with what everybody waits for. The order in which fibers start is a parameter, so that a missing barrier
// shows in some order even though there is no real concurrency here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "async.h"
#include "fiber.h"

namespace gk_host {

struct Dim3 {
  std::uint32_t x, y, z;
};

// Where a kernel calls a barrier.
struct Site {
  const char* file;
  std::uint32_t line;
};

// Barriers that kernels have come to on this OS thread, and the one that is left out: for tests
// that show that every barrier is needed.
struct Barriers {
  std::vector<Site> seen;
  std::string skipped_file;
  std::uint32_t skipped_line = 0;
};
extern thread_local Barriers barriers;

// What a launch comes to. Part of the C interface (host.h).
enum Status {
  STATUS_OK = 0,
  STATUS_UNKNOWN_KERNEL = 1,
  STATUS_BAD_SHAPE = 2,
  // Nobody can go on.
  STATUS_DEADLOCK = 3,
  // Lanes of one wave met in different collectives.
  STATUS_DIVERGENCE = 4,
  // More shared memory than the launch asked for, or a write past it.
  STATUS_SHARED_MEMORY = 5,
  STATUS_MISALIGNED = 6,
  STATUS_STACK_OVERFLOW = 7,
  // A rule of asynchronous copies and products was broken.
  STATUS_ASYNC = 8,
};

class Block {
 public:
  // Runs one block to its end, or to its first error.
  Status run(Dim3 index, Dim3 grid, std::uint32_t num_threads, std::uint32_t wave_size, std::uint32_t shared_bytes,
             std::uint32_t order, void (*kernel)(void**), void** args);

  // What the last error was about.
  const std::string& message() const { return message_; }

  std::uint32_t thread() const { return current_; }
  std::uint32_t num_threads() const { return num_threads_; }
  Dim3 index() const { return index_; }
  Dim3 grid() const { return grid_; }

  // The block's barrier. Threads that have ended need not come.
  void sync(Site site);

  // True where a test wants to see what happens without this barrier.
  bool is_skipped(Site site);

  // Bytes start..end of the block's shared memory.
  unsigned char* shared_memory(std::uint32_t start, std::uint32_t end);

  // An asynchronous copy of 16 bytes to shared memory, or of zeros if `from` is null. The destination is poisoned until
  // the running thread waits for the copy's group; the source is read only then.
  void start_copy(void* to, const void* from);
  void commit_copies();
  // Waits for all groups of the running thread but the last `num_under_way`.
  void wait_for_copies(std::uint32_t num_under_way);

  // Shared memory as instructions name it: a window that begins at no round address.
  std::uint32_t shared_address(const void* place) const;
  unsigned char* at_shared_address(std::uint32_t address, std::uint32_t num_bytes);

  Async& async() { return async_; }

  // Suspends the running thread until somebody else unparks it.
  void park() { switch_to_next(); }
  void unpark(std::uint32_t thread) { push_ready(thread); }

  // Ends the block.
  [[noreturn]] void fail(Status status, std::string message);

  void check_alignment(const void* address, std::size_t alignment) {
    if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) fail_misaligned(address, alignment);
  }

  // A meeting of all lanes of the running thread's wave. Two buffers take turns: a lane that runs ahead into the next
  // meeting cannot overwrite what the others still read, and none gets further ahead.
  struct Meeting {
    // Of all lanes, and where the running thread's value goes among them.
    unsigned char* slots;
    std::uint32_t lane;
    unsigned char* result;
    bool is_last;
  };
  static constexpr std::size_t SLOT_BYTES = 128;
  static constexpr std::size_t RESULT_BYTES = 1024;

  Meeting arrive(const char* what) {
    Wave& wave = wave_of(current_);
    if (wave.num_arrived == 0) {
      wave.what = what;
      wave.turn ^= 1;
    } else if (wave.what != what && std::strcmp(wave.what, what) != 0) {
      fail_divergence(what, wave.what);
    }
    ++wave.num_arrived;
    return {wave.slots[wave.turn], current_ & (wave_size_ - 1), wave.results[wave.turn], wave.num_arrived == wave_size_};
  }
  // The last lane has written the result; the others go on.
  void release_wave() {
    Wave& wave = wave_of(current_);
    for (std::uint32_t thread : wave.waiting) push_ready(thread);
    wave.waiting.clear();
    wave.num_arrived = 0;
  }
  void wait() {
    wave_of(current_).waiting.push_back(current_);
    switch_to_next();
  }

 private:
  struct Wave {
    const char* what = nullptr;
    std::uint32_t num_arrived = 0;
    std::uint32_t turn = 0;
    std::vector<std::uint32_t> waiting;
    alignas(16) unsigned char slots[2][64 * SLOT_BYTES];
    alignas(16) unsigned char results[2][RESULT_BYTES];
  };

  struct Copy {
    unsigned char* to;
    const void* from;
  };
  // One thread's copies under way, and where each committed group of them ends.
  struct Copies {
    std::vector<Copy> copies;
    std::vector<std::size_t> group_ends;
  };

  static void run_thread();
  void end_thread();
  unsigned char* stack_of(std::uint32_t thread);
  void prepare(std::uint32_t shared_bytes, std::uint32_t order);
  void release_block();
  [[noreturn]] void fail_misaligned(const void* address, std::size_t alignment);
  [[noreturn]] void fail_divergence(const char* what, const char* others);
  [[noreturn]] void fail_deadlock();
  void check_guards();
  // Until a thread is ready.
  void wait_for_async();

  void switch_to_next() {
    if (num_ready_ == 0) wait_for_async();
    Fiber& from = fibers_[current_];
    current_ = pop_ready();
    switch_fiber(from, fibers_[current_]);
  }
  std::uint32_t pop_ready() {
    --num_ready_;
    if (last_goes_first_) return ready_[ready_at(num_ready_)];
    const std::uint32_t thread = ready_[ready_first_];
    ready_first_ = ready_at(1);
    return thread;
  }
  void push_ready(std::uint32_t thread) {
    ready_[ready_at(num_ready_)] = thread;
    ++num_ready_;
  }
  // Index into the ring, `offset` (at most its size) past the first ready thread.
  std::uint32_t ready_at(std::uint32_t offset) const {
    const std::uint32_t at = ready_first_ + offset;
    return at < num_threads_ ? at : at - num_threads_;
  }
  Wave& wave_of(std::uint32_t thread) { return waves_[thread >> wave_shift_]; }

  Dim3 index_{}, grid_{};
  // A wave has 2^wave_shift_ threads.
  std::uint32_t num_threads_ = 0, wave_size_ = 0, wave_shift_ = 0, shared_bytes_ = 0;
  std::uint32_t current_ = 0, num_live_ = 0;
  void (*kernel_)(void**) = nullptr;
  void** args_ = nullptr;
  Status status_ = STATUS_OK;
  std::string message_;

  Fiber launcher_;
  std::vector<Fiber> fibers_;
  std::vector<unsigned char> stacks_;
  // Ready threads: a ring that holds each thread at most once.
  bool last_goes_first_ = false;
  std::vector<std::uint32_t> ready_;
  std::uint32_t ready_first_ = 0, num_ready_ = 0;
  std::vector<std::uint32_t> at_barrier_;
  std::vector<Wave> waves_;
  std::vector<unsigned char> shared_;
  std::vector<Copies> copies_;

  Async async_;
};

// The block that this OS thread is running.
extern thread_local Block* block;

// Every lane gives a value; the last one to arrive turns all values, in the order of lanes, into the result.
template <class Result, class Value, class Combine>
const Result& exchange(const char* what, const Value& mine, Combine&& combine) {
  static_assert(sizeof(Value) <= Block::SLOT_BYTES, "a lane's value fits its slot");
  static_assert(sizeof(Result) <= Block::RESULT_BYTES, "the result fits");
  const Block::Meeting meeting = block->arrive(what);
  std::memcpy(meeting.slots + meeting.lane * sizeof mine, &mine, sizeof mine);
  Result& result = *reinterpret_cast<Result*>(meeting.result);
  if (meeting.is_last) {
    combine(reinterpret_cast<const Value*>(meeting.slots), result);
    block->release_wave();
  } else {
    block->wait();
  }
  return result;
}

}  // namespace gk_host
