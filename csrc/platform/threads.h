// How many CPUs there are for us, and native threads that keep out of Python's way.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>

namespace inferkit {

/// CPUs that this process may keep busy: its affinity mask, capped by the cgroup's CPU quota (rounded up). At least 1.
/// Read anew at every call.
int usable_cpus();
/// CPUs in the affinity mask of the main thread as it is now: a thread that an application pins says nothing of the
/// others. At least 1.
int process_cpus();

/// The CPU quota, in CPUs, of the cgroups that `cgroup_file` (as /proc/self/cgroup) names below `root` (as
/// /sys/fs/cgroup), the tightest of each path from leaf to root; nullopt where there is none. Knows v1 and v2.
std::optional<double> cgroup_cpu_quota(const std::string& cgroup_file, const std::string& root);

/// The kernel's id of the calling thread, as in /proc/self/task.
uint32_t thread_id();

/// Names the calling thread in debuggers and /proc (15 bytes are kept).
void set_thread_name(const std::string& name);

/// Starts a thread that is named and blocks every signal but those of its own faults, so that handlers run on the
/// threads of the application. `body` must not throw.
std::thread start_thread(const std::string& name, std::function<void()> body);
/// Whether start_thread() has made the calling thread.
bool is_started_here();

/// While a thread that start_thread() has made runs code that is not ours: the signals are those of who made it, as the
/// processes that such code starts inherit what is blocked. Elsewhere it does nothing.
class ForeignCode {
 public:
  ForeignCode();
  ~ForeignCode();
  ForeignCode(const ForeignCode&) = delete;
  ForeignCode& operator=(const ForeignCode&) = delete;
};

}  // namespace inferkit
