#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "platform/system_memory.h"
#include "test.h"

using namespace inferkit;
namespace fs = std::filesystem;

namespace {

struct Tree {
  fs::path root = fs::temp_directory_path() / ("cgroup_memory_" + std::to_string(::getpid()));
  ~Tree() { fs::remove_all(root); }
  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root / path).parent_path());
    std::ofstream(root / path) << text;
  }
  std::optional<size_t> limit(const std::string& lines) const {
    write("self", lines);
    return cgroup_memory_limit((root / "self").string(), root.string());
  }
};

}  // namespace

TEST(memory_is_that_of_the_machine_at_most) {
  CHECK(usable_memory() >= size_t{64} << 20);
  CHECK(usable_memory() < size_t{1} << 50);
}

TEST(memory_limits_of_cgroup_v2_hold_from_leaf_to_root) {
  const Tree tree;
  tree.write("a/b/memory.max", "max\n");
  CHECK(!tree.limit("0::/a/b\n"));
  tree.write("a/memory.max", "1000000\n");
  CHECK(tree.limit("0::/a/b\n") == size_t{1000000});
  tree.write("memory.max", "700000\n");
  CHECK(tree.limit("0::/a/b\n") == size_t{700000});
  CHECK(tree.limit("0::/\n") == size_t{700000});
}

TEST(memory_limits_of_cgroup_v1_stand_in_their_own_hierarchy) {
  const Tree tree;
  tree.write("memory/x/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(!tree.limit("3:cpu:/x\n9:memory:/x\n"));
  tree.write("memory/x/memory.limit_in_bytes", "4096000\n");
  CHECK(tree.limit("3:cpu:/x\n9:memory:/x\n") == size_t{4096000});
  CHECK(!tree.limit("3:cpu:/x\n"));
}

TEST(memory_limits_are_none_where_there_is_no_file) { CHECK(!cgroup_memory_limit("/nowhere/self", "/nowhere")); }
