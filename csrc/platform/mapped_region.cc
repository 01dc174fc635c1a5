#include "platform/mapped_region.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace inferkit {
namespace {

// Plain and constant-initialised: the handler reads it. A thread without a scope may touch it first in the handler,
// where the C library may have to allocate; such a thread faults in code that is not ours and not the allocator's.
constinit thread_local const MappedRegions* readable = nullptr;

struct sigaction previous;  // written before the handler is there

/// Puts zeros in place of what is missing from `address` on. Async-signal-safe: one system call, no lock.
bool survive(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (!readable) return false;
  for (const MappedRegion* region : *readable) {
    const auto begin = reinterpret_cast<uintptr_t>(region->begin);
    if (at < begin || at - begin >= region->bytes) continue;
    const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const uintptr_t from = at & ~(page - 1), to = (begin + region->bytes + page - 1) & ~(page - 1);
    // The mark comes first: who reads the zeros of another thread's fault finds it set.
    region->lost.store(true, std::memory_order_seq_cst);
    // The call itself, and not the C library's function: TSan stands in front of that, takes it for a write to every
    // byte, and would report the reads of other threads, which find the page of the file or the one of zeros.
    return ::syscall(SYS_mmap, from, to - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != -1;
  }
  return false;
}

/// As if ours had never been there.
void pass_on(int number, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(number, info, context);
    return;
  }
  const bool sent = info->si_code <= 0;  // by kill() and its kin, not by a fault
  if (previous.sa_handler == SIG_IGN && sent) return;
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
    return;
  }
  struct sigaction fatal{};
  fatal.sa_handler = SIG_DFL;
  ::sigaction(number, &fatal, nullptr);
  if (sent) ::raise(number);  // blocked until we return; a fault comes again by itself
}

void on_bus_error(int number, siginfo_t* info, void* context) {
  const int error = errno;
  if (info->si_code != BUS_ADRERR || !survive(info->si_addr)) pass_on(number, info, context);
  errno = error;
}

void install() {
  static const bool done = [] {
    ::sigaction(SIGBUS, nullptr, &previous);
    struct sigaction ours{};
    ours.sa_sigaction = on_bus_error;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    ::sigemptyset(&ours.sa_mask);
    return ::sigaction(SIGBUS, &ours, nullptr) == 0;
  }();
  static_cast<void>(done);
}

}  // namespace

MappedReads::MappedReads(const MappedRegions* regions) : outermost_(regions && !readable) {
  if (!outermost_) return;
  install();
  readable = regions;
}

MappedReads::~MappedReads() {
  if (outermost_) readable = nullptr;
}

const MappedRegions* MappedReads::current() { return readable; }

}  // namespace inferkit
