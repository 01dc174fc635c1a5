// A test program of a few macros: TEST(name) { CHECK(...); }. A failed check prints both sides and the test goes on,
// so one run shows every failure. `test_<folder> PATTERN` runs the tests whose name holds PATTERN, `-PATTERN` the
// others.
#pragma once
#include <exception>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace inferkit::testing {

struct TestCase {
  std::string name;
  std::function<void()> body;
};

inline std::vector<TestCase>& all_tests() {
  static std::vector<TestCase> tests;
  return tests;
}

inline int& failures() {
  static int count = 0;
  return count;
}

/// Why the test that runs does not test here; empty where it does.
inline std::string& skipped() {
  static std::string why;
  return why;
}

/// Ends the test that runs; it does not test here.
class SkipError : public std::exception {
 public:
  explicit SkipError(std::string why) : why_(std::move(why)) {}
  const char* what() const noexcept override { return why_.c_str(); }

 private:
  std::string why_;
};

struct Registrar {
  Registrar(const char* name, std::function<void()> body) { all_tests().push_back({name, std::move(body)}); }
};

inline void fail(const char* file, int line, const std::string& what) {
  ++failures();
  std::cerr << file << ":" << line << ": " << what << "\n";
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out << text << ": " << a << " != " << b;
  fail(file, line, out.str());
}

}  // namespace inferkit::testing

#define TEST(name)                                                                  \
  static void test_##name();                                                        \
  static const ::inferkit::testing::Registrar registrar_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition) \
  ((condition) ? (void)0 : ::inferkit::testing::fail(__FILE__, __LINE__, "not true: " #condition))
#define CHECK_EQ(a, b) ::inferkit::testing::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
#define CHECK_THROWS(expression, type)                                                              \
  do {                                                                                              \
    bool thrown_ = false;                                                                           \
    try {                                                                                           \
      (void)(expression);                                                                           \
    } catch (const type&) {                                                                         \
      thrown_ = true;                                                                               \
    }                                                                                               \
    if (!thrown_) ::inferkit::testing::fail(__FILE__, __LINE__, "no " #type " from: " #expression); \
  } while (false)
