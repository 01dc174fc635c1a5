// The floating-point environment that models run in.
#pragma once
#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace inferkit {

/// While it lives, this thread rounds to nearest, takes subnormal operands for zero, makes zero of subnormal results
/// and traps nothing; afterwards it has its caller's environment again, flags included. A subnormal costs an x86 core
/// some 150 cycles, so that without it the time of a run would depend on its values; and the bits of an answer would
/// depend on what some other library left behind.
///
/// The operations of the kernels lie behind function pointers, which no compiler moves them across.
class FloatEnvironment {
 public:
#if defined(__x86_64__)
  using Word = uint32_t;  // MXCSR
  static Word current() { return _mm_getcsr(); }
  static void set(Word word) { _mm_setcsr(word); }
  /// All exceptions masked; the rounding bits 0.
  static constexpr Word kPlain = 0x1f80;
  /// And FTZ, DAZ.
  static constexpr Word kOurs = kPlain | 0x8000 | 0x0040;
#elif defined(__aarch64__)
  using Word = uint64_t;  // FPCR
  static Word current() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void set(Word word) { asm volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
  static constexpr Word kPlain = 0;
  /// FZ; the rounding bits 0, no traps. Half precision keeps its subnormals, as F16C does on x86.
  static constexpr Word kOurs = Word{1} << 24;
#else
#error "which floating-point environment does this machine have?"
#endif

  FloatEnvironment() : FloatEnvironment(kOurs) {}
  /// Another: kPlain, which keeps subnormals, is for what moves values and computes nothing with them.
  explicit FloatEnvironment(Word word) : before_(current()) { set(word); }
  ~FloatEnvironment() { set(before_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  const Word before_;
};

}  // namespace inferkit
