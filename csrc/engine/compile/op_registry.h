// The table of operators. Each file of ops/ registers one family. HACKING.md says what else knows operators by name.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/compile/dynamic.h"
#include "engine/compile/lists.h"
#include "engine/compile/lowering.h"
#include "graph/op_schema.h"

namespace inferkit {

/// The subgraph that a node stands for, where its inputs decide that (If); may throw NeedsValue. The compiler puts the
/// nodes of that subgraph where the node was.
using SelectFn = const Graph& (*)(const NodeContext&);

struct OpDef {
  OpSchema schema;
  std::vector<Lowering> lowerings;  // best first; empty where no plan can run it
  DynamicFn dynamic = nullptr;
  SelectFn select = nullptr;
  ResolveFn resolve = nullptr;
  std::string_view family = "";
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
  void add(const OpSchema& schema, LowerFn lower) { add(OpDef{schema, one(lower)}); }
  /// The same with several ways to run it, best first: of those that cost the same, the first is taken.
  void add(const OpSchema& schema, std::vector<Lowering> lowerings) { add(OpDef{schema, std::move(lowerings)}); }
  /// An operator whose outputs' shapes depend on values. Where its rule throws NeedsValue (or it has none), `dynamic`
  /// runs it between two plans; what follows is compiled for the shapes that came out.
  void add_dynamic(const OpSchema& schema, LowerFn lower, DynamicFn dynamic) {
    add(OpDef{schema, one(lower), dynamic});
  }
  /// Another way to run all versions of an operator that is there, behind those that it has: for devices.
  void add_lowering(std::string_view domain, std::string_view name, const Lowering& lowering);
  /// Adds the step that turns `from`, of this shape, into `layout` at `to`.
  using ReorderFn = void (*)(LowerContext& c, const Shape& shape, Ref from, Ref to, Layout layout);
  void set_reorder(ReorderFn fn) { reorder_ = fn; }
  ReorderFn reorder() const { return reorder_; }
  /// A device's step with DeviceAnswer.
  void set_answer(StepFn fn) { answer_ = fn; }
  StepFn answer() const { return answer_; }
  void add_select(const OpSchema& schema, SelectFn select) { add(OpDef{schema, {}, nullptr, select}); }
  /// An operator on sequences: `resolve` spells it out where they are known. Where only a run tells, `dynamic` runs it
  /// between two plans; without that, the plan that follows is compiled for the sequences that came.
  void add_lists(const OpSchema& schema, ResolveFn resolve, DynamicFn dynamic) {
    add(OpDef{schema, {}, dynamic, nullptr, resolve});
  }

 private:
  static std::vector<Lowering> one(LowerFn lower) {
    return lower ? std::vector<Lowering>{{.name = kOnlyLowering, .lower = lower}} : std::vector<Lowering>();
  }
  void add(OpDef def);
  std::unordered_map<std::string, std::vector<OpDef>> ops_;  // by "domain:name"
  std::string_view family_;
  ReorderFn reorder_ = nullptr;
  StepFn answer_ = nullptr;
};

inline constexpr std::string_view kOnnx = "";
inline constexpr std::string_view kOnnxMl = "ai.onnx.ml";
inline constexpr std::string_view kMicrosoft = "com.microsoft";
inline constexpr std::string_view kInternal = "inferkit";  // written by our passes, never by a file

}  // namespace inferkit
