// Memory that changes between two reads, as an array does that another thread or process writes, but every time at the
// same place: no read goes unseen, since each faults, runs as a single step, and is counted.
#pragma once
#include <csignal>
#include <cstdint>
#include <cstring>
#include <span>

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_THREAD__)
#define INFERKIT_CHANGING_MEMORY 1
#include <sys/mman.h>
#include <ucontext.h>

namespace inferkit::testing {

/// Holds `first`; after `period` accesses `second`, then `first` again, and so on. One at a time in the process, and
/// one thread at a time in it. Writes are accesses too, and are lost with the next change.
class ChangingMemory {
 public:
  ChangingMemory(std::span<const std::byte> first, std::span<const std::byte> second, int period) : period_(period) {
    constexpr size_t kPage = 4096;
    bytes_ = first.size();
    mapped_ = (bytes_ + kPage - 1) / kPage * kPage;
    contents_[0] = first.data();
    contents_[1] = second.data();
    void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory_ = memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
    std::memcpy(memory_, first.data(), bytes_);
    active() = this;
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = on_fault;
    sigaction(SIGSEGV, &action, &old_[0]);
    action.sa_sigaction = on_step;
    sigaction(SIGTRAP, &action, &old_[1]);
    mprotect(memory_, mapped_, PROT_NONE);
  }
  ~ChangingMemory() {
    munmap(memory_, mapped_);
    sigaction(SIGSEGV, &old_[0], nullptr);
    sigaction(SIGTRAP, &old_[1], nullptr);
    active() = nullptr;
  }
  ChangingMemory(const ChangingMemory&) = delete;
  ChangingMemory& operator=(const ChangingMemory&) = delete;

  /// False where instructions cannot be stepped through, as below valgrind.
  static bool works() {
    const std::byte content[1] = {};
    const ChangingMemory memory(content, content, 1);
    [[maybe_unused]] const std::byte read = *static_cast<const volatile std::byte*>(memory.data());
    return memory.accesses() == 1;
  }

  void* data() const { return memory_; }
  int64_t accesses() const { return accesses_; }

 private:
  static constexpr greg_t kTrapFlag = 0x100;  // of x86: an exception after the next instruction
  static ChangingMemory*& active() {
    static ChangingMemory* memory = nullptr;
    return memory;
  }
  static void on_fault(int, siginfo_t* info, void* context) {
    ChangingMemory* self = active();
    const auto* at = static_cast<const std::byte*>(info->si_addr);
    if (!self || at < self->memory_ || at >= self->memory_ + self->mapped_) {
      std::signal(SIGSEGV, SIG_DFL);  // a fault like any other: it happens again, and ends the program
      return;
    }
    mprotect(self->memory_, self->mapped_, PROT_READ | PROT_WRITE);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] |= kTrapFlag;
  }
  static void on_step(int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~kTrapFlag;
    ChangingMemory* self = active();
    self->accesses_ = self->accesses_ + 1;
    std::memcpy(self->memory_, self->contents_[self->accesses_ / self->period_ % 2], self->bytes_);
    mprotect(self->memory_, self->mapped_, PROT_NONE);
  }

  const int period_;
  size_t bytes_ = 0, mapped_ = 0;
  std::byte* memory_ = nullptr;
  const std::byte* contents_[2] = {};
  volatile int64_t accesses_ = 0;  // a signal handler counts
  struct sigaction old_[2] = {};
};

}  // namespace inferkit::testing
#endif
