#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/build_info.h"
#include "device/cuda/cuda.h"
#include "device/cuda/image.h"
#include "kernels/cpu/report.h"
#include "platform/isa.h"
#include "platform/process_memory.h"
#include "platform/thread_pool.h"
#include "platform/time_slice.h"

namespace py = pybind11;

namespace inferkit {

namespace {

py::list words(std::string_view text) {
  py::list out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    out.append(std::string(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

void bind_build_info(py::module_& m) {
  active_isa();  // an INFERKIT_ISA that cannot be honoured is an error at import, not at the first request
  m.def(
      "build_info",
      [] {
        const BuildInfo& info = build_info();
        py::dict out;
        out["version"] = std::string(info.version);
        out["build_type"] = std::string(info.build_type);
        out["debug"] = info.debug;
        out["compiler"] = std::string(info.compiler);
        out["flags"] = std::string(info.flags);
        out["sanitizers"] = std::string(info.sanitizers);
        py::list tiers;
        for (Isa isa : available_isas()) tiers.append(std::string(isa_name(isa)));
        out["isa_available"] = tiers;
        out["isa"] = std::string(isa_name(active_isa()));
        py::list features;
        for (const auto name : feature_names(active_features())) features.append(std::string(name));
        out["isa_features"] = features;
        out["isa_reason"] = isa_reason();
        out["cpus"] = ThreadPool::process().size();
        out["time_slices"] = std::string(slice_support_text(slice_support()));
        out["cuda"] = has_cuda_kernels();
        out["cuda_targets"] = words(cuda_targets);
        return out;
      },
      "What this binary was built with and which tier it runs, as a dict.");
  m.def(
      "active_kernels",
      [] {
        py::dict out;
        for (const auto& row : kernels::active_kernels()) out[py::str(row.family)] = row.tier;
        return out;
      },
      "For each family of kernels, the tier for which its code was compiled. To know that, Linux is asked for the "
      "tiles of AMX.");
  m.def("resident_bytes", &resident_bytes, "Physical memory of the process, in bytes; 0 where it cannot be told.");
}

}  // namespace inferkit
