#include <sys/wait.h>
#include <unistd.h>

#include "platform/fork.h"
#include "test.h"

TEST(fork_generation_changes_in_the_child_alone) {
  const uint32_t before = inferkit::fork_generation();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(inferkit::fork_generation() == before ? 1 : 0);
  int status = -1;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK_EQ(status, 0);
  CHECK_EQ(inferkit::fork_generation(), before);
}
