// Threads of control that hand over to each other by hand: a GPU thread on the host is one.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(GK_UCONTEXT)
#include <ucontext.h>
#endif

namespace gk_host {

// A suspended thread of control.
struct Fiber {
#if defined(__x86_64__) && !defined(GK_UCONTEXT)
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};

// Makes `fiber` start in `entry` (which never returns) on the given stack when it is switched to.
void make_fiber(Fiber& fiber, unsigned char* stack, std::size_t stack_bytes, void (*entry)());

// Suspends the running thread of control in `from` and continues `to`.
void switch_fiber(Fiber& from, Fiber& to);

}  // namespace gk_host
