// From a file that was read to a model, with the packed weights that files of other processes have.
#include <stdexcept>

#include "base/text.h"
#include "engine/model/model.h"
#include "engine/model/packed_cache.h"

namespace inferkit {
std::shared_ptr<Model> Model::make(ModelFile file, ModelOptions options, const std::string& path) {
  if (!options.packed_file.empty() && !options.packed_cache.empty()) {
    throw std::invalid_argument("give packed, a file, or packed_cache, a folder, but not both");
  }
  const MappedFiles model_files = file.files;
  options.threads = threads_of(options);
  const int threads = options.threads;
  const PackedTag tag = packed_tag(options.precision);
  const PackedCache cache(options.packed_cache, tag);
  const std::string given = options.packed_file;
  std::string in_cache;
  std::shared_ptr<const PackedFile> packed;
  PackedUse use;
  if (!given.empty()) {
    packed = open_packed(given, tag, model_files, threads);
    use.file = given;
  } else if (!options.packed_cache.empty()) {
    in_cache = model_files.guarded([&] { return cache.path_of(file, options.outputs); });
    packed = cache.find(in_cache, model_files, threads, use.why);
    if (packed) use.file = in_cache;
  }
  if (packed) file.files.add(packed->file());
  const MappedFiles files = file.files;
  auto model =
      files.guarded([&] { return std::make_shared<Model>(std::move(file), std::move(options), path, packed); });
  if (!given.empty() && packed->sections() > 0 && model->packed_->shared_bytes() == 0) {
    throw Error(ErrorCode::kModel, cat("the packed file ", quote(given),
                                       " does not fit: it has none of the weights that "
                                       "this model packs; write it again with Model.save_packed()"));
  }
  // What loading read of the model's files, other processes need not have in common with this one.
  if (packed) {
    for (const auto& read : model_files.all()) read->release_pages();
  }
  if (!packed && !in_cache.empty()) {
    const auto write = [&](const std::string& to) { model->packed_->save(to, 0600, tag); };
    const std::string failure = cache.put(in_cache, write);
    if (!failure.empty()) use.why += cat("; and none could be written: ", failure);
  }
  model->packed_use_ = std::move(use);
  return model;
}

void Model::save_packed(const std::string& path) const {
  file_.files.guarded([&] { packed_->save(path, 0666, packed_tag(options_.precision)); });
}

}  // namespace inferkit
