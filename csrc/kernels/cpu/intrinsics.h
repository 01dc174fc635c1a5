// What the compiler offers of the instruction set. It is most of what a file of kernels reads, and compiled once for
// each tier (cmake/Isa.cmake).
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
