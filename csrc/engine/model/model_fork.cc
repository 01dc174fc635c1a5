#include "engine/model/model_fork.h"

#include <pthread.h>

#include <memory>
#include <mutex>
#include <vector>

#include "engine/model/model.h"

namespace inferkit {
namespace {

struct LiveModels {
  std::mutex mutex;  // guards the list, and keeps it still from before a fork until after
  std::vector<Model*> models;
};

LiveModels& live() {
  static LiveModels& models = *std::make_unique<LiveModels>().release();  // never destroyed: models outlive main()
  return models;
}

void before_fork() {
  live().mutex.lock();
  for (Model* model : live().models) model->lock();
}

void after_fork() {
  for (Model* model : live().models) model->unlock();
  live().mutex.unlock();
}

void after_fork_in_child() {
  for (Model* model : live().models) model->forget_unfinished();
  after_fork();
}

}  // namespace

void register_for_fork(Model* model) {
  static const int installed = ::pthread_atfork(before_fork, after_fork, after_fork_in_child);
  static_cast<void>(installed);  // without memory for the handlers, fork is as unsafe as it is without them
  const std::lock_guard lock(live().mutex);
  live().models.push_back(model);
}

void unregister_for_fork(Model* model) noexcept {
  const std::lock_guard lock(live().mutex);
  std::erase(live().models, model);
}

}  // namespace inferkit
