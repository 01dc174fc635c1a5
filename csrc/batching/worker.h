// The threads of a batcher.
#pragma once
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace inferkit {

/// Native threads that block every signal.
class Workers {
 public:
  Workers() = default;
  ~Workers() { join(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void start(const std::string& name, const std::function<void()>& body);
  /// Their bodies must be about to return.
  void join();

 private:
  std::vector<std::thread> threads_;
};

}  // namespace inferkit
