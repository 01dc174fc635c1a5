// Errors of the system about a file.
#pragma once
#include <string>
#include <system_error>
#include <utility>

namespace inferkit {

/// With the path by itself: Python's OSError has it as `filename`.
class FileError : public std::system_error {
 public:
  FileError(int error, std::string path)
      : std::system_error(error, std::generic_category(), path), path_(std::move(path)) {}
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace inferkit
