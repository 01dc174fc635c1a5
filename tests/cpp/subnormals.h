// Whether subnormals can be flushed to zero here, for tests of answers that depend on it.
#pragma once
#include "test.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace inferkit::testing {

/// Whether the processor does as FTZ and DAZ of MXCSR say; else the test is skipped. What simulates one may ignore
/// them. Asks with bits of its own: FloatEnvironment is what is tested.
inline bool can_flush_subnormals() {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x1f80 | 0x8000 | 0x0040);
  volatile float tiny = 1e-40f, small = 1.5e-38f, two = 2, quarter = 0.25f;
  volatile float from_tiny = tiny * two, to_tiny = small * quarter;
  const bool flushed = from_tiny == 0 && to_tiny == 0;
  _mm_setcsr(before);
  if (!flushed) skipped() = "the processor does not flush subnormals to zero here, as below valgrind";
  return flushed;
#else
  return true;
#endif
}

}  // namespace inferkit::testing
