// Errors: one code here, one Python class, one HTTP status, in one table (error_table).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/cat.h"

namespace inferkit {

enum class ErrorCode : uint8_t {
  kOk,
  kValidation,     // the input is wrong
  kOutput,         // the model's answer fails its checks
  kModel,          // the file is malformed
  kUnsupportedOp,  // the file needs an operator, attribute or type that is not there
  kInference,      // a run failed (a wrapped callable raised)
  kQueueFull,      // admission refused
  kDeadline,       // the time of the request passed
  kClosed,         // draining or closed
  kNotReady,       // not loaded or warmed up
  kCancelled,      // the caller cancelled
  kPoolExhausted,  // the buffer pool reached its cap
  kDevice,         // a device is not there, or failed
};
inline constexpr int kErrorCodeCount = 13;

/// The machine-readable part of a ValidationError or an OutputError.
enum class Reason : uint8_t { kNone, kEmpty, kTooLarge, kNonFinite, kDtype, kShape, kName, kAllZero, kNotNormalized };
inline constexpr int kReasonCount = 9;

/// "non_finite", ...; "" for kNone.
std::string_view reason_name(Reason reason);

struct ErrorRow {
  ErrorCode code;
  std::string_view python_class;
  int http_status;
};
/// Every code but kOk, in order.
std::span<const ErrorRow> error_table();

/// How an error travels without an exception: across threads, through queues, out of a worker.
struct Status {
  ErrorCode code = ErrorCode::kOk;
  Reason reason = Reason::kNone;
  std::string message;
  std::shared_ptr<void> cause;  // opaque: the Python exception that a wrapped callable raised

  bool ok() const { return code == ErrorCode::kOk; }
};

/// The text with every NUL written out, for what(): names in messages may hold any character, C strings end at one.
std::string without_nuls(std::string text);

/// How an error travels within one thread. Never thrown across a thread's border.
class Error : public std::runtime_error {
 public:
  [[gnu::cold]] Error(ErrorCode code, const std::string& message);
  [[gnu::cold]] Error(ErrorCode code, Reason reason, const std::string& message);
  [[gnu::cold]] explicit Error(Status status);
  Error(const Error& other) noexcept;
  ~Error() override;

  ErrorCode code() const { return code_; }
  Reason reason() const { return reason_; }
  const std::shared_ptr<void>& cause() const { return cause_; }
  Status status() const;

 private:
  ErrorCode code_;
  Reason reason_;
  std::shared_ptr<void> cause_;
};

/// The status of the exception in flight; call it in a catch (...) block.
Status current_exception_status() noexcept;

}  // namespace inferkit
