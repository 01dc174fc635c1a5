#include <cstring>
#include <exception>

#include "test.h"

int main(int argc, char** argv) {
  using namespace inferkit::testing;
  const char* pattern = argc > 1 ? argv[1] : "";
  const bool without = pattern[0] == '-';
  int ran = 0;
  for (const TestCase& test : all_tests()) {
    if ((std::strstr(test.name.c_str(), pattern + without) != nullptr) == without) continue;
    const int before = failures();
    skipped().clear();
    try {
      test.body();
    } catch (const SkipError& why) {
      skipped() = why.what();
    } catch (const std::exception& error) {
      fail(test.name.c_str(), 0, std::string("threw: ") + error.what());
    }
    ++ran;
    const bool failed = failures() != before;
    std::cout << (failed ? "FAIL " : skipped().empty() ? "ok   " : "SKIP ") << test.name;
    std::cout << (skipped().empty() ? "" : ": " + skipped()) << "\n";
  }
  std::cout << ran << " passed or failed, " << failures() << " failed checks\n";
  if (ran == 0) std::cerr << "no test matches '" << pattern << "'\n";
  return failures() != 0 || ran == 0;
}
