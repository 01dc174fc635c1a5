#include "platform/process_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>

namespace inferkit {

size_t resident_bytes() {
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  char text[128];
  const ssize_t length = ::read(file, text, sizeof text - 1);
  ::close(file);
  if (length <= 0) return 0;
  text[length] = 0;
  char* at = nullptr;
  std::strtoull(text, &at, 10);  // the size of the address space
  return static_cast<size_t>(std::strtoull(at, nullptr, 10)) * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace inferkit
