#include "platform/system_memory.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/text.h"
#include "platform/text_file.h"

namespace inferkit {
namespace {

/// A file with one number; "max" (v2), or more than any machine has (v1), means no limit.
std::optional<size_t> limit_in(const std::string& path) {
  constexpr size_t kNone = size_t{1} << 60;
  const std::string text = read_text_file(path).value_or("");
  size_t bytes = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), bytes).ec != std::errc{} || bytes >= kNone) {
    return std::nullopt;
  }
  return bytes;
}

/// The tighter of the two, where they are there.
std::optional<size_t> least(std::optional<size_t> a, std::optional<size_t> b) {
  return a && b ? std::min(*a, *b) : a ? a : b;
}

}  // namespace

std::optional<size_t> cgroup_memory_limit(const std::string& cgroup_file, const std::string& root) {
  const std::string text = read_text_file(cgroup_file).value_or("");
  std::optional<size_t> limit;
  for (const std::string_view line : split(text, '\n')) {  // "0::/a/b" in v2, "9:memory:/a/b" in v1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers != "memory") continue;
    const std::string mount = controllers.empty() ? root : root + "/memory";
    const std::string name = controllers.empty() ? "/memory.max" : "/memory.limit_in_bytes";
    std::string path(line.substr(second + 1));
    if (path.empty() || path[0] != '/') continue;
    while (true) {
      limit = least(limit, limit_in(mount + path + name));
      if (path.empty() || path == "/") break;
      path.erase(path.rfind('/'));
    }
  }
  return limit;
}

size_t usable_memory() {
  const size_t machine = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  return *least(machine, cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup"));
}

}  // namespace inferkit
