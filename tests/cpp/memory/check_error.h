// Checks that code throws Error with a code, and that its message says what it should.
#pragma once
#include <string>

#include "base/error.h"
#include "test.h"

namespace inferkit::testing {

/// The message of the Error with `code` that `body` throws; "" and a failed check where it throws none.
template <class F>
std::string error_of(ErrorCode code, F body) {
  try {
    body();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  fail(__FILE__, __LINE__, "no Error was thrown");
  return "";
}

inline bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace inferkit::testing

#define CHECK_MESSAGE(code, expression, part)                                                                       \
  do {                                                                                                              \
    const std::string message_ = ::inferkit::testing::error_of(code, [&] { (void)(expression); });                  \
    if (!::inferkit::testing::holds(message_, part)) {                                                              \
      ::inferkit::testing::fail(__FILE__, __LINE__, "'" + message_ + "' does not say '" + std::string(part) + "'"); \
    }                                                                                                               \
  } while (false)
