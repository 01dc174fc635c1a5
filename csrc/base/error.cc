#include "base/error.h"

#include <array>
#include <new>

namespace inferkit {
namespace {
constexpr std::array<ErrorRow, kErrorCodeCount - 1> kTable = {{
    {ErrorCode::kValidation, "ValidationError", 400},
    {ErrorCode::kOutput, "OutputError", 500},
    {ErrorCode::kModel, "ModelError", 500},
    {ErrorCode::kUnsupportedOp, "UnsupportedOpError", 500},
    {ErrorCode::kInference, "InferenceError", 500},
    {ErrorCode::kQueueFull, "QueueFullError", 429},
    {ErrorCode::kDeadline, "DeadlineError", 504},
    {ErrorCode::kClosed, "ClosedError", 503},
    {ErrorCode::kNotReady, "NotReadyError", 503},
    {ErrorCode::kCancelled, "RequestCancelledError", 499},
    {ErrorCode::kPoolExhausted, "PoolExhaustedError", 503},
    {ErrorCode::kDevice, "DeviceError", 503},
}};
constexpr std::array<std::string_view, kReasonCount> kReasons = {
    "", "empty", "too_large", "non_finite", "dtype", "shape", "name", "all_zero", "not_normalized"};
}  // namespace

std::span<const ErrorRow> error_table() { return kTable; }
std::string_view reason_name(Reason reason) { return kReasons[static_cast<size_t>(reason)]; }

std::string without_nuls(std::string text) {
  for (size_t at = 0; (at = text.find('\0', at)) != std::string::npos;) text.replace(at, 1, "\\x00");
  return text;
}

// Not in the header, where every file would compile them again.
Error::Error(ErrorCode code, const std::string& message) : Error(code, Reason::kNone, message) {}
Error::Error(ErrorCode code, Reason reason, const std::string& message)
    : std::runtime_error(without_nuls(message)), code_(code), reason_(reason) {}
Error::Error(Status status) : Error(status.code, status.reason, status.message) { cause_ = std::move(status.cause); }
Error::Error(const Error&) noexcept = default;
Error::~Error() = default;
Status Error::status() const { return {code_, reason_, what(), cause_}; }

Status current_exception_status() noexcept {
  // Short enough for a string to hold without memory of its own.
  const auto out_of_memory = [] { return Status{ErrorCode::kPoolExhausted, Reason::kNone, "out of memory", nullptr}; };
  try {
    try {
      throw;
    } catch (const Error& error) {
      return error.status();
    } catch (const std::bad_alloc&) {
      return out_of_memory();
    } catch (const std::exception& error) {
      return {ErrorCode::kInference, Reason::kNone, error.what(), nullptr};
    } catch (...) {
      return {ErrorCode::kInference, Reason::kNone, "unknown error", nullptr};
    }
  } catch (...) {
    return out_of_memory();  // not even for the message
  }
}

}  // namespace inferkit
