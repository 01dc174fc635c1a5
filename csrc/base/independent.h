// Loops that GCC is to make vectors of.
#pragma once

/// Before a loop whose turns read nothing that other turns write, so that GCC makes vectors of it without looking for
/// overlaps first; clang looks by itself, when the loop begins.
#if defined(__clang__)
#define INFERKIT_INDEPENDENT
#else
#define INFERKIT_INDEPENDENT _Pragma("GCC ivdep")
#endif
