// Scan as opset 8 has it: its inputs and outputs have a batch first, and each entry of it is scanned by itself. It is
// spelled out as a Scan of opset 9 over the entries, whose body is another one, over an entry's sequence.
#include <algorithm>

#include "engine/compile/expand.h"

namespace inferkit {
namespace {

void expand_scan(Expansion& e) {
  if (e.has(0)) e.refuse("sequences of different lengths (sequence_lens)");
  const auto it = e.node().attributes.find("body");
  const auto* body = it == e.node().attributes.end() ? nullptr : std::get_if<std::shared_ptr<Graph>>(&it->second);
  if (!body || !*body) throw Error(ErrorCode::kModel, cat(e.node().label(), ": the attribute 'body' must be a graph"));
  const auto count = static_cast<int64_t>(e.node().inputs.size()) - 1;
  if (count < 1) throw Error(ErrorCode::kModel, cat(e.node().label(), ": has no inputs"));

  auto entry = std::make_shared<Graph>();  // what is done for one entry of the batch
  entry->name = "entry of the batch";
  Node scan;
  scan.op_type = "Scan";
  scan.name = e.node().name;
  scan.version = 9;
  scan.stands_for = e.node().origins();
  scan.attributes = e.keep({"num_scan_inputs"});
  if (const auto turned = e.node().attributes.find("directions"); turned != e.node().attributes.end()) {
    scan.attributes.emplace("scan_input_directions", turned->second);
  }
  for (int64_t i = 0; i < count; ++i) {
    entry->inputs.push_back(entry->add_value(cat("in ", i)));
    scan.inputs.push_back(entry->inputs.back());
  }
  for (size_t o = 0; o < (*body)->outputs.size(); ++o) {
    entry->outputs.push_back(entry->add_value(cat("out ", o)));
    scan.outputs.push_back(entry->outputs.back());
  }
  auto inner = std::make_shared<Graph>(**body);
  for (Capture& capture : inner->captures) {  // they pass through the graph between
    entry->captures.push_back({capture.outer, entry->add_value("captured")});
    capture.outer = entry->captures.back().inner;
  }
  scan.attributes.emplace("body", std::move(inner));
  entry->nodes.push_back(std::move(scan));

  const size_t outputs = entry->outputs.size();
  const auto made = e.add_many(outputs, "Scan", 9, {e.node().inputs.begin() + 1, e.node().inputs.end()},
                               {{"num_scan_inputs", count}, {"body", std::move(entry)}});
  for (size_t o = 0; o < std::min(outputs, e.node().outputs.size()); ++o) {
    if (e.wants(o)) e.give(o, made[o]);
  }
}

}  // namespace

void register_scan_of_batches(OpRegistry& r) {
  add_expanded(r, {.name = "Scan", .since = 8, .until = 8, .min_inputs = 2}, expand_scan);
}

}  // namespace inferkit
