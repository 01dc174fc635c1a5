// The driver's library: what is declared of it, and what becomes of a machine that has none.
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "device/cuda/cuda.h"
#include "device/cuda/driver.h"
#include "support.h"

#if __has_include(<cuda.h>)
#include <cuda.h>
#endif

using namespace inferkit;

namespace {

TEST(a_library_that_is_not_there_says_so) {
  const driver::Driver none = driver::open_driver("libinferkit-no-such-driver.so.1");
  CHECK(none.why_not.find("libinferkit-no-such-driver.so.1 cannot be opened") != std::string::npos);
}

TEST(a_library_without_the_functions_is_too_old) {
  const driver::Driver other = driver::open_driver("libc.so.6");
  CHECK_EQ(other.why_not, "the CUDA driver is too old: libc.so.6 has no function cuInit");
}

TEST(a_device_that_is_not_there_is_an_error_with_the_reason) {
  constexpr int kNone = 9999;
  const std::string why = why_no_cuda(kNone);
  CHECK(!why.empty());
  try {
    cuda_device(kNone);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kDevice);
    CHECK_EQ(std::string(error.what()), why + "; leave device out, or give \"cpu\", to run on the CPU");
  }
}

// Where CUDA's own header is, every declaration has as many parameters as there, each a pointer or none, and of that
// size: what decides how they are passed.
#if defined(__cuda_cuda_h__) && CUDA_VERSION >= 12000
static_assert(CUDA_ERROR_OUT_OF_MEMORY == driver::kOutOfMemory);
static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == driver::kMajor);
static_assert(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == driver::kMinor);
static_assert(CU_STREAM_NON_BLOCKING == driver::kNonBlocking);
static_assert(CU_EVENT_DISABLE_TIMING == driver::kNoTiming);
static_assert(CU_POINTER_ATTRIBUTE_MEMORY_TYPE == driver::kMemoryType);
static_assert(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL == driver::kDeviceOrdinal);
static_assert(CU_MEMORYTYPE_DEVICE == driver::kDeviceMemory);
static_assert(CUDA_ERROR_INVALID_VALUE == driver::kInvalidValue && CUDA_ERROR_NOT_READY == driver::kNotReady);
static_assert(CUDA_ERROR_INVALID_CONTEXT == driver::kInvalidContext);
static_assert(CUDA_ERROR_INVALID_HANDLE == driver::kInvalidHandle);
static_assert(CU_EVENT_RECORD_EXTERNAL == driver::kExternal);
static_assert(CU_MEMHOSTALLOC_PORTABLE == driver::kPortable && CU_MEMHOSTALLOC_DEVICEMAP == driver::kMapped);
static_assert(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL == driver::kThreadLocal);
static_assert(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES == driver::kLocalBytes);
static_assert(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == driver::kMostDynamicShared);

// Enums of CUDA's are ints of ours, and its pointers and handles pointers.
template <class T>
struct Plain {
  using Type = T;
};
template <class T>
  requires std::is_enum_v<T>
struct Plain<T> {
  using Type = int;
};
template <class R, class... Args>
std::tuple<typename Plain<R>::Type, typename Plain<Args>::Type...> plain(R (*)(Args...));
template <class A, class B>
constexpr bool alike_v = false;
template <class... A, class... B>
constexpr bool alike_v<std::tuple<A...>, std::tuple<B...>> =
    sizeof...(A) == sizeof...(B) && ((sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>) && ...);

#define INFERKIT_SAME(name, symbol, parameters) \
  static_assert(alike_v<decltype(plain(::symbol)), decltype(plain(std::declval<driver::Driver>().name))>, #symbol);
INFERKIT_CUDA_DRIVER(INFERKIT_SAME)
#undef INFERKIT_SAME
TEST(the_declarations_are_those_of_cuda_h) { CHECK(CUDA_VERSION >= 12000); }
#else
TEST(the_declarations_are_those_of_cuda_h) { inferkit::testing::skipped() = "CUDA's header is not here"; }
#endif

}  // namespace
