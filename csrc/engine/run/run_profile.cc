#include "engine/run/run_profile.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace inferkit {

namespace {

int64_t median(std::vector<int64_t> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

struct RunProfile::TimedPlan {
  TimedPlan(std::shared_ptr<const Plan> of, PlanNotes noted, BufferPool& pool)
      : plan(std::move(of)), notes(std::move(noted)), taken(plan->steps.size()), session(plan, pool, taken.data()) {
    for (const NodeNote& note : notes.nodes) {
      key += cat(note.op, '\n', note.name, '\n', note.lowering ? note.lowering->name : "", '\n');
      for (const auto* values : {&note.inputs, &note.outputs}) {  // nodes need no names, but values have some
        for (const ValueNote& value : *values) key += cat(value.name, '\n');
      }
    }
  }

  /// This holds it twice, in `plan` and in `session`.
  bool is_forgotten() const { return plan.use_count() <= 2; }

  const std::shared_ptr<const Plan> plan;
  const PlanNotes notes;
  std::string key;  // of plans that do the same, for whatever shapes
  std::vector<Nanos> taken;
  Session session;
};

RunProfile::RunProfile(BufferPool& pool) : pool_(pool), parts_(1) {}
RunProfile::~RunProfile() = default;

void RunProfile::add(const std::shared_ptr<const Plan>& plan, PlanNotes notes) {
  constexpr size_t kKept = 64;
  if (plans_.size() >= kKept) std::erase_if(plans_, [](const auto& entry) { return entry.second->is_forgotten(); });
  plans_.emplace(plan.get(), std::make_unique<TimedPlan>(plan, std::move(notes), pool_));
}

size_t RunProfile::part_of(const std::string& key) {
  const size_t outer = current_.back();
  for (const size_t part : parts_[outer].parts) {
    if (parts_[part].key == key) return part;
  }
  parts_[outer].parts.push_back(parts_.size());
  parts_.emplace_back().key = key;
  return parts_.size() - 1;
}

void RunProfile::run(const Plan& plan, std::span<const void* const> inputs, std::span<void* const> outputs,
                     const ExecContext& context) {
  TimedPlan& timed = *plans_.at(&plan);
  timed.session.run(inputs, outputs, context);
  threads_ = std::max(threads_, context.max_threads);
  Part& part = parts_[part_of(timed.key)];
  part.has_note = true;
  if (plan.arena_bytes >= part.arena_bytes) {
    part.arena_bytes = plan.arena_bytes;
    part.constants = timed.notes.constants;
  }
  part.rows.resize(timed.notes.nodes.size());
  int64_t all = 0;
  for (size_t i = 0; i < part.rows.size(); ++i) {
    const NodeNote& note = timed.notes.nodes[i];
    Part::Row& row = part.rows[i];
    if (row.run_executions == 0) row.note = note;  // the shapes of the first in each run
    ++row.run_executions;
    for (size_t step = note.first_step; step < note.first_step + note.steps; ++step) {
      row.run_nanos += timed.taken[step];
      all += timed.taken[step];
    }
  }
  parts_[current_.back()].inside += all;
}

RunProfile::NodeScope::NodeScope(RunProfile* profile, const Node& node) : profile_(profile) {
  if (!profile_) return;
  profile_->enter(node);
  started_ = SteadyClock::instance().now();
}

RunProfile::NodeScope::~NodeScope() {
  if (profile_) profile_->leave(SteadyClock::instance().now() - started_);
}

void RunProfile::enter(const Node& node) {
  const ValueId output = node.outputs.empty() ? kNoValue : node.outputs[0];
  const size_t part = part_of(cat("node ", node.op_type, '\n', node.name, '\n', output));
  parts_[part].on_values = true;
  parts_[part].rows.resize(1);
  parts_[part].inside = 0;
  current_.push_back(part);
}

void RunProfile::set_note(NodeNote note) {
  Part& part = parts_[current_.back()];
  part.rows[0].note = std::move(note);
  part.has_note = true;
}

void RunProfile::leave(Nanos taken) {
  Part& part = parts_[current_.back()];
  ++part.rows[0].run_executions;
  part.rows[0].run_nanos += taken - part.inside;
  current_.pop_back();
  parts_[current_.back()].inside += taken;
}

void RunProfile::end_run(bool counts) {
  for (Part& part : parts_) {
    part.inside = 0;
    for (Part::Row& row : part.rows) {
      const int64_t nanos = std::exchange(row.run_nanos, 0), executions = std::exchange(row.run_executions, 0);
      if (!counts) continue;
      // A part that no run met before did not take part in those.
      row.nanos.resize(static_cast<size_t>(measured_));
      row.executions.resize(static_cast<size_t>(measured_));
      row.nanos.push_back(nanos);
      row.executions.push_back(executions);
    }
  }
  if (counts) ++measured_;
}

void RunProfile::flatten(size_t part, int within, std::vector<ProfiledNode>& out) const {
  const Part& from = parts_[part];
  for (const Part::Row& row : from.rows) {
    if (!from.has_note) continue;
    out.push_back({row.note, from.on_values, within, median(row.executions), median(row.nanos)});
  }
  const int inner = from.on_values && from.has_note ? static_cast<int>(out.size()) - 1 : within;
  for (const size_t each : from.parts) flatten(each, inner, out);
}

std::vector<ProfiledNode> RunProfile::nodes() const {
  std::vector<ProfiledNode> out;
  flatten(0, -1, out);
  return out;
}

size_t RunProfile::weight_bytes() const {
  std::map<const void*, size_t> once;
  for (const Part& part : parts_) once.insert(part.constants.begin(), part.constants.end());
  size_t bytes = 0;
  for (const auto& [data, size] : once) bytes += size;
  return bytes;
}

size_t RunProfile::arena_bytes() const {
  size_t bytes = 0;
  for (const Part& part : parts_) bytes += part.arena_bytes;
  return bytes;
}

}  // namespace inferkit
