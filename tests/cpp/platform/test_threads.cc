#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "platform/threads.h"
#include "test.h"

using namespace inferkit;

namespace {

/// A folder of small files that goes away with it.
class Tree {
 public:
  Tree() {
    char pattern[] = "/tmp/inferkit-threads-XXXXXX";
    path_ = mkdtemp(pattern);
  }
  ~Tree() { std::filesystem::remove_all(path_); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
  }
  std::string at(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST(threads_quota_of_cgroup_v2_is_the_tightest_of_the_path) {
  const Tree tree;
  tree.write("cgroup", "0::/a/b\n");
  CHECK(!cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")));
  tree.write("fs/a/b/cpu.max", "max 100000\n");
  CHECK(!cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")));
  tree.write("fs/a/cpu.max", "150000 100000\n");
  CHECK_EQ(cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")).value_or(0), 1.5);
  tree.write("fs/a/b/cpu.max", "50000 100000\n");
  CHECK_EQ(cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")).value_or(0), 0.5);
}

TEST(threads_quota_in_a_container_of_cgroup_v2) {
  const Tree tree;  // the namespace shows its own root as "/"
  tree.write("cgroup", "0::/\n");
  tree.write("fs/cpu.max", "300000 100000\n");
  CHECK_EQ(cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")).value_or(0), 3.0);
}

TEST(threads_quota_of_cgroup_v1) {
  const Tree tree;
  tree.write("cgroup", "12:cpuset:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/y\n");
  tree.write("fs/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
  tree.write("fs/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
  CHECK(!cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")));
  tree.write("fs/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "250000\n");
  CHECK_EQ(cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")).value_or(0), 2.5);
}

TEST(threads_quota_ignores_nonsense) {
  const Tree tree;
  tree.write("cgroup", "\nno colons\n0:\n0::relative\n0::/a\n");
  tree.write("fs/a/cpu.max", "lots of it");
  CHECK(!cgroup_cpu_quota(tree.at("cgroup"), tree.at("fs")));
  CHECK(!cgroup_cpu_quota(tree.at("missing"), tree.at("fs")));
}

TEST(threads_usable_cpus_follow_the_affinity) {
  cpu_set_t before;
  CPU_ZERO(&before);
  CHECK_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  const int all = usable_cpus();
  CHECK(all >= 1 && all <= CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  CHECK_EQ(usable_cpus(), 1);
  CHECK_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  CHECK_EQ(usable_cpus(), all);
}

TEST(threads_are_named_and_keep_out_of_signals) {
  std::string name;
  bool blocked = false, faults_open = false;
  start_thread("inferkit-with-a-long-name", [&] {
    char text[16] = {};
    pthread_getname_np(pthread_self(), text, sizeof(text));
    name = text;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM) && sigismember(&mask, SIGPROF);
    faults_open = !sigismember(&mask, SIGSEGV) && !sigismember(&mask, SIGBUS);
  }).join();
  CHECK_EQ(name, "inferkit-with-a");
  CHECK(blocked && faults_open);
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(!sigismember(&mine, SIGINT));
}
