// Mapped files whose pages the kernel may take away: who reads a page beyond the end of a file that was cut short, or
// that the disk cannot give, gets SIGBUS, which ends the process. Kernels read such memory in a scope of MappedReads.
#pragma once
#include <atomic>
#include <cstddef>
#include <vector>

namespace inferkit {

/// A mapping of a file; `begin` is at a page's start.
struct MappedRegion {
  const std::byte* begin = nullptr;
  size_t bytes = 0;
  /// Set by the first read that found a page missing; what was read since then is partly zeros.
  mutable std::atomic<bool> lost{false};
};

using MappedRegions = std::vector<const MappedRegion*>;

/// While it lives, a read of a missing page of `regions`, by this thread or by the thread pool for it, marks the region
/// as lost and gives zeros. Whoever reads asks for that mark before it gives a result away. Reads by other threads, or
/// of other memory, end as they would without it. `regions` may grow, but not while it is read. Of nested scopes the
/// outermost counts: it names all that the inner ones read.
///
/// The handler of SIGBUS that does this is installed with the first one that has regions, in front of the handler that
/// was there (faulthandler's, a sanitizer's), which gets every other fault. Who installs another one later and does not
/// pass on what is not its own takes this away.
class MappedReads {
 public:
  explicit MappedReads(const MappedRegions& regions) : MappedReads(&regions) {}
  /// Those of current(), which may be null, in another thread.
  explicit MappedReads(const MappedRegions* regions);
  ~MappedReads();
  MappedReads(const MappedReads&) = delete;
  MappedReads& operator=(const MappedReads&) = delete;

  /// What the scopes of this thread name; null outside of them.
  static const MappedRegions* current();

 private:
  bool outermost_;
};

}  // namespace inferkit
