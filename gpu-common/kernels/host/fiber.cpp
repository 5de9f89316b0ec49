#include "fiber.h"

#include <cstdint>

#if defined(__x86_64__) && !defined(GK_UCONTEXT)

// Saves what the System V ABI lets a callee not change, swaps stacks, restores. Twenty times as fast as swapcontext,
// which asks the kernel for the signal mask.
extern "C" void gk_host_switch(void** save, void* load);
asm(".text\n"
    ".globl gk_host_switch\n"
    ".hidden gk_host_switch\n"
    ".type gk_host_switch, @function\n"
    "gk_host_switch:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size gk_host_switch, .-gk_host_switch\n");

namespace gk_host {

void make_fiber(Fiber& fiber, unsigned char* stack, std::size_t stack_bytes, void (*entry)()) {
  constexpr int NUM_SAVED_REGISTERS = 6;
  const auto end = reinterpret_cast<std::uintptr_t>(stack + stack_bytes) & ~std::uintptr_t(15);
  void** top = reinterpret_cast<void**>(end);
  // The entry finds the stack as after a call: a return address, which is never used, above 16-byte alignment.
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = top - NUM_SAVED_REGISTERS;
}

void switch_fiber(Fiber& from, Fiber& to) { gk_host_switch(&from.stack_pointer, to.stack_pointer); }

}  // namespace gk_host

#else

namespace gk_host {

void make_fiber(Fiber& fiber, unsigned char* stack, std::size_t stack_bytes, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = stack_bytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}

void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

}  // namespace gk_host

#endif
