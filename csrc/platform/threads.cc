#include "platform/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <string_view>

#include "base/text.h"
#include "platform/text_file.h"

namespace inferkit {
namespace {

/// Of the thread `who`; 0 is the caller.
int affinity_cpus(pid_t who) {
  // The kernel refuses a mask smaller than its own; grow until it fits.
  for (int capacity = 1024; capacity <= 1 << 16; capacity *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(capacity), [](cpu_set_t* s) { CPU_FREE(s); });
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    CPU_ZERO_S(bytes, set.get());
    if (sched_getaffinity(who, bytes, set.get()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.get()));
  }
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// The numbers of the file's first line, as far as it holds numbers; a missing file holds none.
std::vector<double> numbers_of(const std::string& path) {
  std::vector<double> out;
  const std::string text = read_text_file(path).value_or("");
  for (const std::string_view word : split(std::string_view(text).substr(0, text.find('\n')), ' ')) {
    double number = 0;
    if (std::from_chars(word.data(), word.data() + word.size(), number).ec != std::errc{}) break;
    out.push_back(number);
  }
  return out;
}

std::optional<double> quotient(double quota, double period) {
  if (quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

/// cgroup v2: "max 100000" or "150000 100000".
std::optional<double> quota_v2(const std::string& folder) {
  const auto numbers = numbers_of(folder + "/cpu.max");
  return numbers.size() < 2 ? std::nullopt : quotient(numbers[0], numbers[1]);
}

/// cgroup v1: two files; a quota of -1 means none.
std::optional<double> quota_v1(const std::string& folder) {
  const auto quota = numbers_of(folder + "/cpu.cfs_quota_us"), period = numbers_of(folder + "/cpu.cfs_period_us");
  return quota.empty() || period.empty() ? std::nullopt : quotient(quota[0], period[0]);
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
  const auto names = split(controllers, ',');
  return std::find(names.begin(), names.end(), "cpu") != names.end();
}

}  // namespace

std::optional<double> cgroup_cpu_quota(const std::string& cgroup_file, const std::string& root) {
  const std::string text = read_text_file(cgroup_file).value_or("");
  std::optional<double> least;
  for (const std::string_view line : split(text, '\n')) {  // "0::/a/b" in v2, "4:cpu,cpuacct:/a/b" in v1
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers(line.substr(first + 1, second - first - 1)), path(line.substr(second + 1));
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
  const int cpus = affinity_cpus(0);
  const auto quota = cgroup_cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup");
  return quota ? std::clamp(static_cast<int>(std::ceil(*quota)), 1, cpus) : cpus;
}

int process_cpus() { return affinity_cpus(::getpid()); }

uint32_t thread_id() {
  thread_local const auto id = static_cast<uint32_t>(::gettid());
  return id;
}

void set_thread_name(const std::string& name) { pthread_setname_np(pthread_self(), name.substr(0, 15).c_str()); }

namespace {

/// All but those that a fault of the thread's own raises.
void block_signals(sigset_t* before) {
  sigset_t all;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, before);
}

/// Of threads that start_thread() has made: the mask of who made them.
struct Origin {
  bool ours = false;
  sigset_t mask;
};
thread_local Origin origin;

}  // namespace

bool is_started_here() { return origin.ours; }

ForeignCode::ForeignCode() {
  if (origin.ours) pthread_sigmask(SIG_SETMASK, &origin.mask, nullptr);
}

ForeignCode::~ForeignCode() {
  if (origin.ours) block_signals(nullptr);
}

std::thread start_thread(const std::string& name, std::function<void()> body) {
  // A new thread inherits the mask, so no signal can reach it before it would block them itself.
  sigset_t before;
  block_signals(&before);
  struct Restore {
    const sigset_t& mask;
    ~Restore() { pthread_sigmask(SIG_SETMASK, &mask, nullptr); }
  } restore{before};
  return std::thread([name, body = std::move(body), before] {
    origin = {true, before};
    set_thread_name(name);
    body();
  });
}

}  // namespace inferkit
