#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>

#include "platform/time_slice.h"
#include "test.h"

using namespace inferkit;

namespace {

constexpr Nanos kMilli = 1'000'000;

/// What the kernel says of the calling thread, read where its manual says it lies; zeros where it says nothing.
struct Said {
  uint64_t flags = 0, runtime = 0;
  int32_t nice = 0;
};
Said said() {
  std::array<unsigned char, 48> raw{};
  if (syscall(SYS_sched_getattr, 0, raw.data(), raw.size(), 0) != 0) return {};
  Said out;
  std::memcpy(&out.flags, raw.data() + 8, 8);
  std::memcpy(&out.nice, raw.data() + 16, 4);
  std::memcpy(&out.runtime, raw.data() + 24, 8);
  return out;
}

/// On a thread of its own, as what is asked for stays with the thread.
void on_a_thread(auto&& body) { std::thread(body).join(); }

/// Where the kernel has no slices of threads, nothing may change and nothing is said to have changed.
bool without_slices() {
  if (slice_support() == SliceSupport::kYes) return false;
  const Said before = said();
  TimeSlice slice;
  CHECK(!slice.may_ask() && !slice.fit(kMilli) && slice.asked() == 0);
  CHECK_EQ(said().runtime, before.runtime);
  inferkit::testing::skipped() = "the kernel has no slices of threads";
  return true;
}

}  // namespace

TEST(time_slice_is_asked_for_where_it_is_shorter_than_the_usual_one) {
  on_a_thread([] {
    if (without_slices()) return;
    const auto usual = static_cast<Nanos>(said().runtime);
    CHECK(usual > kShortestSlice);
    TimeSlice slice;
    CHECK(slice.may_ask());
    CHECK(slice.fit(200'000));
    CHECK_EQ(said().runtime, 200'000u);
    CHECK_EQ(slice.asked(), 200'000);
    CHECK(!slice.fit(200'000));  // has it
    CHECK(slice.fit(1));
    CHECK_EQ(said().runtime, uint64_t(kShortestSlice));
    CHECK(slice.fit(usual));  // as at first
    CHECK_EQ(static_cast<Nanos>(said().runtime), usual);
    CHECK_EQ(slice.asked(), 0);
    CHECK(!slice.fit(kLongestSlice));  // nor more than that
    CHECK_EQ(static_cast<Nanos>(said().runtime), usual);
  });
}

TEST(time_slice_is_the_threads_own) {
  on_a_thread([] {
    if (without_slices()) return;
    const uint64_t usual = said().runtime;
    TimeSlice slice;
    CHECK(slice.fit(200'000));
    on_a_thread([&] { CHECK_EQ(said().runtime, usual); });  // those that it starts have the usual one
    const pid_t child = ::fork();
    if (child == 0) ::_exit(said().runtime == usual && said().flags == 0 ? 0 : 1);
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
  });
}

TEST(time_slice_leaves_the_nice_value_alone) {
  on_a_thread([] {
    if (without_slices()) return;
    TimeSlice slice;
    const auto self = static_cast<id_t>(::gettid());
    CHECK_EQ(::setpriority(PRIO_PROCESS, self, 3), 0);  // after it was looked at
    CHECK(slice.fit(200'000));
    CHECK_EQ(said().nice, 3);
    CHECK_EQ(said().runtime, 200'000u);
    on_a_thread([] { CHECK_EQ(said().nice, 3); });
  });
}

TEST(time_slice_is_not_asked_for_where_it_is_switched_off) {
  on_a_thread([] {
    if (without_slices()) return;
    const uint64_t usual = said().runtime;
    CHECK_EQ(::setenv("INFERKIT_TIME_SLICES", "0", 1), 0);
    CHECK(slice_support() == SliceSupport::kSwitchedOff);
    TimeSlice slice;
    CHECK_EQ(::unsetenv("INFERKIT_TIME_SLICES"), 0);
    CHECK(!slice.may_ask());
    CHECK(!slice.fit(200'000));
    CHECK_EQ(said().runtime, usual);
    CHECK(slice_support() == SliceSupport::kYes);
  });
}

TEST(time_slice_is_not_asked_for_where_the_policy_has_none) {
  on_a_thread([] {
    if (without_slices()) return;
    TimeSlice before;
    const sched_param none{};
    CHECK_EQ(::sched_setscheduler(0, SCHED_IDLE, &none), 0);
    CHECK(slice_support() == SliceSupport::kOtherKind);
    CHECK(!before.fit(200'000));
    CHECK_EQ(::sched_getscheduler(0), SCHED_IDLE);
    TimeSlice slice;
    CHECK(!slice.may_ask());
    CHECK(!slice.fit(200'000));
  });
}
