// Kernels by name, as GK_EXPORT enters them.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace gk_host {

// A kernel that takes its arguments as addresses of values.
template <auto Kernel>
class Entry;

template <class... Params, void (*Kernel)(Params...)>
class Entry<Kernel> {
 public:
  static void call(void** args) { call(args, std::index_sequence_for<Params...>()); }

  static std::vector<std::uint8_t> param_bytes() { return {std::uint8_t(sizeof(Params))...}; }

 private:
  template <std::size_t... I>
  static void call(void** args, std::index_sequence<I...>) {
    Kernel(*static_cast<Params*>(args[I])...);
  }
};

struct Kernel {
  const char* profile;
  const char* family;
  const char* name;
  std::uint32_t wave_size;
  void (*call)(void** args);
  std::vector<std::uint8_t> param_bytes;
};

// All kernels of the program.
std::vector<Kernel>& kernels();

struct Registration {
  template <class E>
  Registration(const char* profile, const char* family, const char* name, std::uint32_t wave_size, E) {
    kernels().push_back({profile, family, name, wave_size, &E::call, E::param_bytes()});
  }
};

}  // namespace gk_host
