#include "platform/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>
#include <string_view>

namespace inferkit {
namespace {

int affinity_cpus() {
  // The kernel refuses a mask smaller than its own; grow until it fits.
  for (int capacity = 1024; capacity <= 1 << 16; capacity *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(capacity), [](cpu_set_t* s) { CPU_FREE(s); });
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(0, bytes, set.get()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.get()));
  }
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return line;
}

/// cgroup v2: "max 100000" or "150000 100000".
std::optional<double> quota_v2(const std::string& folder) {
  const auto line = read_line(folder + "/cpu.max");
  if (!line) return std::nullopt;
  std::istringstream in(*line);
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

/// cgroup v1: two files; a quota of -1 means none.
std::optional<double> quota_v1(const std::string& folder) {
  const auto quota = read_line(folder + "/cpu.cfs_quota_us"), period = read_line(folder + "/cpu.cfs_period_us");
  if (!quota || !period) return std::nullopt;
  const double q = std::strtod(quota->c_str(), nullptr), p = std::strtod(period->c_str(), nullptr);
  if (q <= 0 || p <= 0) return std::nullopt;
  return q / p;
}

/// The tightest quota of `path` and every cgroup above it, in the hierarchy mounted at `mount`.
std::optional<double> tightest(const std::string& mount, std::string path,
                               std::optional<double> (*quota_of)(const std::string&)) {
  std::optional<double> least;
  while (true) {
    if (const auto quota = quota_of(mount + path)) least = least ? std::min(*least, *quota) : *quota;
    if (path.empty() || path == "/") return least;
    path.erase(path.rfind('/'));
  }
}

bool lists_cpu(const std::string& controllers) {
  std::istringstream in(controllers);
  for (std::string name; std::getline(in, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const std::string& cgroup_file, const std::string& root) {
  std::ifstream in(cgroup_file);
  std::optional<double> least;
  for (std::string line; std::getline(in, line);) {  // "0::/a/b" in v2, "4:cpu,cpuacct:/a/b" in v1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    std::optional<double> quota;
    if (controllers.empty()) {
      quota = tightest(root, path, quota_v2);
    } else if (lists_cpu(controllers)) {
      quota = tightest(root + "/" + controllers, path, quota_v1);
      if (!quota) quota = tightest(root + "/cpu", path, quota_v1);
    }
    if (quota) least = least ? std::min(*least, *quota) : *quota;
  }
  return least;
}

int usable_cpus() {
  const int cpus = affinity_cpus();
  const auto quota = cgroup_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");
  return quota ? std::clamp(static_cast<int>(std::ceil(*quota)), 1, cpus) : cpus;
}

uint32_t thread_id() {
  thread_local const auto id = static_cast<uint32_t>(::gettid());
  return id;
}

void set_thread_name(const std::string& name) { pthread_setname_np(pthread_self(), name.substr(0, 15).c_str()); }

std::thread start_thread(const std::string& name, std::function<void()> body) {
  // A new thread inherits the mask, so no signal can reach it before it would block them itself.
  sigset_t all, before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  struct Restore {
    const sigset_t& mask;
    ~Restore() { pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
  } restore{before};
  return std::thread([name, body = std::move(body)] {
    set_thread_name(name);
    body();
  });
}

}  // namespace inferkit
