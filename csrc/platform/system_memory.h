// How much memory there is for us.
#pragma once
#include <cstddef>
#include <optional>
#include <string>

namespace inferkit {

/// Bytes that this process may use at most: the machine's memory, capped by the cgroup's limit. Read anew at every
/// call.
size_t usable_memory();

/// The memory limit of the cgroups that `cgroup_file` (as /proc/self/cgroup) names below `root` (as /sys/fs/cgroup),
/// the tightest of each path from leaf to root; nullopt where there is none. Knows v1 and v2.
std::optional<size_t> cgroup_memory_limit(const std::string& cgroup_file, const std::string& root);

}  // namespace inferkit
