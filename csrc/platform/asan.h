// INFERKIT_ASAN, where AddressSanitizer watches over memory.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define INFERKIT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define INFERKIT_ASAN 1
#endif
