#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "platform/text_file.h"
#include "test.h"

using namespace inferkit;
namespace fs = std::filesystem;

TEST(text_file_is_read_whole) {
  const fs::path path = fs::temp_directory_path() / ("text_file_" + std::to_string(::getpid()));
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{4096}, size_t{10'000}}) {
    const std::string text(bytes, 'x');
    std::ofstream(path) << text;
    CHECK(read_text_file(path.string()) == text);
  }
  fs::remove(path);
  CHECK(!read_text_file(path.string()));
  CHECK(!read_text_file("/"));  // opens, and cannot be read
}

TEST(text_file_reads_what_the_kernel_tells) { CHECK(read_text_file("/proc/self/statm").value_or("").size() > 5); }
