#include <map>
#include <string>
#include <tuple>

#include "host.h"
#include "registry.h"

namespace gk_host {

std::vector<Kernel>& kernels() {
  static std::vector<Kernel> all;
  return all;
}

namespace {

constexpr std::uint32_t MAX_THREADS = 1024;
// What the GPU with the most can give one block, when asked. What a device gives is its runtime's business.
constexpr std::uint32_t MAX_SHARED_BYTES = 227 << 10;

thread_local std::string last_error;

const Kernel* find(const std::string& profile, const std::string& family, const std::string& name) {
  using Key = std::tuple<std::string, std::string, std::string>;
  static const std::map<Key, const Kernel*> by_name = [] {
    std::map<Key, const Kernel*> by_name;
    for (const Kernel& kernel : kernels()) by_name[{kernel.profile, kernel.family, kernel.name}] = &kernel;
    return by_name;
  }();
  const auto found = by_name.find({profile, family, name});
  return found == by_name.end() ? nullptr : found->second;
}

int fail(Status status, const std::string& name, const std::string& message) {
  last_error = name + ": " + message;
  return status;
}

std::string text(Dim3 size) {
  return std::to_string(size.x) + " x " + std::to_string(size.y) + " x " + std::to_string(size.z);
}

}  // namespace
}  // namespace gk_host

using namespace gk_host;

bool gk_host_kernel(std::size_t index, GkHostKernel* kernel) {
  if (index >= kernels().size()) return false;
  const Kernel& found = kernels()[index];
  *kernel = {found.profile, found.family, found.name, std::uint32_t(found.param_bytes.size()),
             found.param_bytes.data()};
  return true;
}

int gk_host_launch(const char* profile, const char* family, const char* name, Dim3 grid, Dim3 block,
                   std::uint32_t shared_bytes, void** args, std::uint32_t order) {
  const Kernel* kernel = find(profile, family, name);
  if (kernel == nullptr) {
    return fail(STATUS_UNKNOWN_KERNEL, name, std::string("no such kernel in family ") + family + " for " + profile);
  }
  const std::uint32_t wave_size = kernel->wave_size;
  const bool has_blocks = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.y < 65536 && grid.z < 65536;
  const bool has_waves =
      block.x > 0 && block.x <= MAX_THREADS && block.x % wave_size == 0 && block.y == 1 && block.z == 1;
  if (!has_blocks || !has_waves || shared_bytes > MAX_SHARED_BYTES) {
    return fail(STATUS_BAD_SHAPE, name,
                "grid " + text(grid) + ", block " + text(block) + ", " + std::to_string(shared_bytes) +
                    " bytes of shared memory");
  }
  static thread_local Block runner;
  for (std::uint32_t z = 0; z < grid.z; ++z) {
    for (std::uint32_t y = 0; y < grid.y; ++y) {
      for (std::uint32_t x = 0; x < grid.x; ++x) {
        const Status status = runner.run({x, y, z}, grid, block.x, wave_size, shared_bytes, order, kernel->call, args);
        if (status != STATUS_OK) return fail(status, name, "block " + text({x, y, z}) + ": " + runner.message());
      }
    }
  }
  return STATUS_OK;
}

bool gk_host_barrier(std::size_t index, const char** file, std::uint32_t* line) {
  if (index >= barriers.seen.size()) return false;
  *file = barriers.seen[index].file;
  *line = barriers.seen[index].line;
  return true;
}

void gk_host_skip_barrier(const char* file, std::uint32_t line) {
  barriers.skipped_file = file;
  barriers.skipped_line = line;
}

const char* gk_host_error() { return last_error.c_str(); }
