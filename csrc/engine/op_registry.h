// The table of operators. Each file of ops/ registers one family; adding an operator touches that file alone.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/lower.h"
#include "graph/op_schema.h"

namespace inferkit {

struct OpDef {
  OpSchema schema;
  LowerFn lower = nullptr;
  std::string_view family;
};

class OpRegistry {
 public:
  /// The process's table, filled at the first call; read-only afterwards.
  static const OpRegistry& instance();

  /// The operator that covers (domain, name) at opset `version`; nullptr where there is none.
  const OpDef* find(std::string_view domain, std::string_view name, int version) const;
  std::vector<const OpDef*> all() const;  // sorted by domain, name, since

  /// For register_<family> functions: `family` holds for the calls of add that follow.
  void begin_family(std::string_view family) { family_ = family; }
  void add(const OpSchema& schema, LowerFn lower);

 private:
  std::unordered_map<std::string, std::vector<OpDef>> ops_;  // by "domain:name"
  std::string_view family_;
};

inline constexpr std::string_view kOnnx = "";
inline constexpr std::string_view kOnnxMl = "ai.onnx.ml";
inline constexpr std::string_view kMicrosoft = "com.microsoft";
inline constexpr std::string_view kInternal = "inferkit";  // written by our passes, never by a file

}  // namespace inferkit
