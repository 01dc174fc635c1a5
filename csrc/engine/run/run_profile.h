// What a run does, with how long it takes: the steps of its plans, the nodes that run on values between them, and what
// the bodies of those do. For Model::profile(); other runs have none.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/compile/plan_notes.h"
#include "engine/plan/plan.h"
#include "platform/clock.h"

namespace inferkit {

/// One node, or copy, of a run that was profiled.
struct ProfiledNode {
  NodeNote note;
  bool on_values = false;  // it runs between plans: the note has no lowering
  int within = -1;         // the node whose body it is in, by its place in the list; -1: none
  int64_t times_run = 1;   // in one run of the model, the median
  int64_t nanos = 0;       // all of these times together, without what is in its body, the median; 0: not measured
};

/// Of several runs of one model. One thread at a time.
class RunProfile {
 public:
  explicit RunProfile(BufferPool& pool);
  ~RunProfile();

  /// Every plan of the runs, with what its compilation noted. Plans that nobody else keeps any more are forgotten: the
  /// body of a loop may have another for each turn.
  void add(const std::shared_ptr<const Plan>& plan, PlanNotes notes);
  /// Runs a plan that was added.
  void run(const Plan& plan, std::span<const void* const> inputs, std::span<void* const> outputs,
           const ExecContext& context);

  /// Around the execution of a node on values; what runs in between is in its body.
  class NodeScope {
   public:
    /// Does nothing where there is no profile.
    NodeScope(RunProfile* profile, const Node& node);
    ~NodeScope();
    NodeScope(const NodeScope&) = delete;
    NodeScope& operator=(const NodeScope&) = delete;
    /// The first time that it is called for a node its note is made, by `make`.
    template <class Make>
    void note(const Make& make) {
      if (profile_ && profile_->needs_note()) profile_->set_note(make());
    }

   private:
    RunProfile* profile_;
    Nanos started_ = 0;
  };

  /// After a run that counts, or (`counts` is false) one that only warmed up.
  void end_run(bool counts);
  /// In the order in which they run: what is in a node's body comes after it.
  std::vector<ProfiledNode> nodes() const;
  /// Of each part the most that one of its plans takes.
  size_t arena_bytes() const;
  /// The most that one of its plans used.
  int threads() const { return threads_; }
  size_t weight_bytes() const;
  /// What the run that goes on took so far.
  Nanos so_far() const { return parts_[0].inside; }

 private:
  struct TimedPlan;
  /// A plan, or a node that runs on values (then there is one row), at its place in the run.
  struct Part {
    struct Row {
      NodeNote note;
      std::vector<int64_t> nanos, executions;
      int64_t run_nanos = 0, run_executions = 0;  // of the run that goes on
    };
    std::string key;  // what tells it from others in the same place
    bool on_values = false, has_note = false;
    std::vector<Row> rows;
    std::vector<size_t> parts;  // in the body
    size_t arena_bytes = 0;
    std::map<const void*, size_t> constants;  // that a plan reads, with their bytes
    int64_t inside = 0;                       // nanoseconds of the execution that goes on that went to these
  };
  /// The part of that key in the body that runs now, as an index.
  size_t part_of(const std::string& key);
  void enter(const Node& node);
  void leave(Nanos taken);
  bool needs_note() const { return !parts_[current_.back()].has_note; }
  void set_note(NodeNote note);
  void flatten(size_t part, int within, std::vector<ProfiledNode>& out) const;

  BufferPool& pool_;
  std::unordered_map<const Plan*, std::unique_ptr<TimedPlan>> plans_;
  std::vector<Part> parts_;         // [0] is the whole run
  std::vector<size_t> current_{0};  // which of them run: the last is in the body of the one before it
  int64_t measured_ = 0;            // runs
  int threads_ = 1;
};

}  // namespace inferkit
