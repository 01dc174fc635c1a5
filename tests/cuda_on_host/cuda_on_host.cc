#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cat.h"
#include "base/dtype.h"
#include "launch.h"
#include "platform/thread_pool.h"
#include "test.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace inferkit::cuda_on_host {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr std::byte kPoison{0xff};  // four of them are a NaN

/// Threads that meet: a block at a barrier, the lanes of a warp in an exchange.
struct Warp {
  uint32_t live = 0, arrived = 0;
  uint64_t meetings = 0;
  uint64_t slots[32] = {}, met[32] = {};
  Fragments fragments[32] = {}, met_fragments[32] = {};
  bool for_fragments = false;  // what the lanes that have arrived meet for
};

/// TSan keeps a stack of calls for each fiber, if it is told when another one goes on; if not, those of all fibers add
/// up in one, until that is full.
class SeenByTsan {
 public:
  SeenByTsan() = default;
  SeenByTsan(const SeenByTsan&) = delete;
  SeenByTsan& operator=(const SeenByTsan&) = delete;
#if defined(__SANITIZE_THREAD__)
  ~SeenByTsan() {
    if (own_.fiber) unused().push_back(own_);
  }
  /// A fiber that begins, or begins again.
  void begin() {
    if (!own_.fiber && !unused().empty()) {
      own_ = unused().back();
      unused().pop_back();
    }
    // Each beginning leaves a call or two behind, and 65,536 are allowed. To make a fiber takes long.
    if (own_.fiber && ++own_.begun > 10'000) __tsan_destroy_fiber(std::exchange(own_.fiber, nullptr));
    if (!own_.fiber) own_ = {__tsan_create_fiber(0), 0};
    fiber_ = own_.fiber;
  }
  /// The thread that calls.
  void be_caller() { fiber_ = __tsan_get_current_fiber(); }
  /// Immediately before the switch to it. One thread runs all fibers of a block, so a switch orders what they do.
  void goes_on() const { __tsan_switch_to_fiber(fiber_, 0); }

 private:
  struct Own {
    void* fiber = nullptr;
    int begun = 0;
  };
  static std::vector<Own>& unused() {
    thread_local std::vector<Own> of_ended_blocks;
    return of_ended_blocks;
  }
  Own own_;
  void* fiber_ = nullptr;
#else
  ~SeenByTsan() = default;
  void begin() {}
  void be_caller() {}
  void goes_on() const {}
#endif
};

/// A block's shared memory, behind which nothing can be read or written: what a device would say of its own is a fault
/// here, too. What is left between its end and that is a guard of a few bytes.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes)
      : bytes_(bytes), padded_((bytes + 15) / 16 * 16), room_((padded_ + kPage - 1) / kPage * kPage) {
    all_ = mmap(nullptr, room_ + kBehind, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all_ == MAP_FAILED || (room_ > 0 && mprotect(all_, room_, PROT_READ | PROT_WRITE) != 0)) {
      throw std::runtime_error("there is no memory for the shared memory of a block");
    }
  }
  ~SharedMemory() { munmap(all_, room_ + kBehind); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::byte* data() const { return static_cast<std::byte*>(all_) + room_ - padded_; }
  std::span<std::byte> all() const { return {data(), padded_}; }
  std::span<std::byte> guard() const { return all().subspan(bytes_); }

 private:
  static constexpr size_t kPage = 4096, kBehind = size_t{1} << 20;
  const size_t bytes_, padded_, room_;
  void* all_;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  void make() const { from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes); }
};

struct Fiber {
  ucontext_t context;
  SeenByTsan seen;
  std::unique_ptr<char[]> stack;
  Dim3 index;
  unsigned number = 0, barriers = 0;  // that it came to
  bool done = false;
  std::vector<std::vector<Copy>> copies;  // that were begun and not awaited; the last group is open
  uint64_t begun = 0;                     // copies of this thread
};

struct Block {
  Grid grid;
  Dim3 index;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::unique_ptr<SharedMemory> shared;
  ucontext_t scheduler;
  SeenByTsan scheduler_seen;
  Fiber* running = nullptr;
  unsigned live = 0, at_barrier = 0;
  uint64_t barriers = 0, events = 0;  // events: whenever a thread ended, or came to where threads meet
  const FunctionRef<void()>* body = nullptr;
  std::string error;
};

thread_local Block* block = nullptr;

void let_others_run() {
  block->scheduler_seen.goes_on();
  swapcontext(&block->running->context, &block->scheduler);
}

/// Does not return: the scheduler throws.
[[noreturn]] void fail(std::string why) {
  const Dim3 &t = block->running->index, &b = block->index;
  block->error = cat(why, " (thread ", t.x, ",", t.y, ",", t.z, " of block ", b.x, ",", b.y, ",", b.z, ")");
  for (;;) let_others_run();
}

void release_barrier() {
  if (block->live == 0 || block->at_barrier != block->live) return;
  block->at_barrier = 0;
  ++block->barriers;
}

void run_thread() {
  (*block->body)();
  Fiber& me = *block->running;
  me.done = true;
  block->warps[me.number / 32].live &= ~(1u << (me.number % 32));
  --block->live;
  ++block->events;
  release_barrier();
  for (;;) let_others_run();
}

void start_threads(Block& b) {
  const Dim3& d = b.grid.threads;
  b.live = static_cast<unsigned>(b.fibers.size());
  b.at_barrier = 0;
  b.warps.assign((b.fibers.size() + 31) / 32, Warp{});
  std::ranges::fill(b.shared->all(), kPoison);
  for (unsigned i = 0; i < b.live; ++i) {
    Fiber& f = b.fibers[i];
    f.done = false;
    f.number = i;
    f.barriers = 0;
    f.copies.assign(1, {});
    f.begun = 0;
    f.index = {i % d.x, i / d.x % d.y, i / (d.x * d.y)};
    b.warps[i / 32].live |= 1u << (i % 32);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStackBytes;
    f.context.uc_link = nullptr;
    makecontext(&f.context, run_thread, 0);
    f.seen.begin();
  }
}

void run_block(Block& b, std::mt19937_64& draw) {
  start_threads(b);
  b.scheduler_seen.be_caller();
  std::vector<unsigned> order(b.fibers.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto where = [&] {
    return cat(" in block ", b.index.x, ",", b.index.y, ",", b.index.z, "; seed ", b.grid.seed);
  };
  while (b.live > 0) {
    std::ranges::shuffle(order, draw);
    const uint64_t before = b.events;
    for (const unsigned i : order) {
      if (b.fibers[i].done) continue;
      b.running = &b.fibers[i];
      b.running->seen.goes_on();
      swapcontext(&b.scheduler, &b.running->context);
      if (!b.error.empty()) throw std::runtime_error(cat(b.error, "; seed ", b.grid.seed));
    }
    if (b.live > 0 && b.events == before) {
      throw std::runtime_error(
          cat(b.at_barrier, " of ", b.live, " threads wait at a barrier, and none can go on", where()));
    }
  }
  if (std::ranges::any_of(b.shared->guard(), [](std::byte v) { return v != kPoison; })) {
    throw std::runtime_error(cat("a thread wrote past the shared memory of ", b.grid.shared_bytes, " bytes", where()));
  }
}

}  // namespace

const Dim3& thread_index() { return block->running->index; }
const Dim3& block_index() { return block->index; }
const Dim3& block_dim() { return block->grid.threads; }
const Dim3& grid_dim() { return block->grid.blocks; }
void* shared_memory() { return block->shared->data(); }
unsigned lane() { return block->running->number % 32; }

void barrier() {
  const unsigned number = block->running->barriers++;
  if (block->grid.drop_every > 0 && number % block->grid.drop_every == block->grid.drop) return;
  const uint64_t mine = block->barriers;
  ++block->at_barrier;
  ++block->events;
  release_barrier();
  while (block->barriers == mine) let_others_run();
}

namespace {

Warp& own_warp() { return block->warps[block->running->number / 32]; }

/// Waits for all lanes of the warp, each of which has left what it brings.
void meet(Warp& warp, bool for_fragments) {
  if (warp.arrived != 0 && warp.for_fragments != for_fragments) {
    fail("lanes of one warp exchange values and multiply fragments");
  }
  warp.for_fragments = for_fragments;
  const uint64_t mine = warp.meetings;
  warp.arrived |= 1u << lane();
  ++block->events;
  if (warp.arrived == warp.live) {
    std::ranges::copy(warp.slots, warp.met);
    std::ranges::copy(warp.fragments, warp.met_fragments);
    warp.arrived = 0;
    ++warp.meetings;
  }
  while (warp.meetings == mine) let_others_run();
}

}  // namespace

const uint64_t* exchange(uint32_t mask, uint64_t value) {
  if (mask != ~0u) fail("exchanges of a part of a warp are not known here");
  Warp& warp = own_warp();
  warp.slots[lane()] = value;
  meet(warp, false);
  return warp.met;
}

const Fragments* exchange_fragments(const Fragments& mine) {
  Warp& warp = own_warp();
  if (warp.live != ~0u) fail("a product of fragments takes a whole warp");
  warp.fragments[lane()] = mine;
  meet(warp, true);
  return warp.met_fragments;
}

namespace {
float without_subnormals(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }
}  // namespace
uint16_t bf16_bits(float v) { return to_bfloat16(without_subnormals(v)).bits; }
uint16_t f16_bits(float v) { return to_half(without_subnormals(v)).bits; }
float float_of_bf16(uint16_t bits) { return to_float(BFloat16{bits}); }
float float_of_f16(uint16_t bits) { return to_float(Half{bits}); }

void check_alignment(const void* at, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0) fail(cat("a load or store of ", bytes, " bytes is not aligned"));
}

// A copy may be made as soon as it is begun and as late as it is awaited: each at one or the other, by the seed. So it
// shows when a thread reads too early, and when it lets what others read be written over.
void begin_copy(void* to, const void* from, size_t bytes) {
  check_alignment(to, bytes);
  check_alignment(from, bytes);
  Fiber& f = *block->running;
  const Copy copy{to, from, bytes};
  // Every bit of the product's upper half hangs on all of the sum's.
  const uint64_t mixed = (block->grid.seed * 1000003 + f.number * 8191 + ++f.begun) * 0x9e3779b97f4a7c15;
  if (mixed >> 63 != 0) {
    copy.make();
  } else {
    f.copies.back().push_back(copy);
  }
}

void close_copies() { block->running->copies.emplace_back(); }

void await_copies(size_t go_on) {
  auto& groups = block->running->copies;
  while (groups.size() > go_on + 1) {
    for (const Copy& copy : groups.front()) copy.make();
    groups.erase(groups.begin());
  }
}

namespace {
std::atomic<bool> is_kept_on{false};  // relaxed: nothing else hangs on it
}  // namespace

void keep_on() { is_kept_on.store(true, std::memory_order_relaxed); }
bool is_off() {
  if (is_kept_on.load(std::memory_order_relaxed)) return false;
  const char* const set = std::getenv("INFERKIT_TEST_ON_DEVICE");
  return set != nullptr && std::string_view(set) == "1";
}
void require_on() {
  if (is_off()) throw testing::SkipError("it is of the emulator, and a device is tested");
}

void launch(const Grid& grid, const FunctionRef<void()>& body) {
  require_on();
  const Dim3 &g = grid.blocks, &t = grid.threads;
  const uint64_t threads = uint64_t{t.x} * t.y * t.z, blocks = uint64_t{g.x} * g.y * g.z;
  if (threads == 0 || threads > 1024 || blocks == 0 || g.y > 65535 || g.z > 65535 || grid.shared_bytes > 227 << 10) {
    throw std::runtime_error(cat("a device would refuse a launch of ", g.x, " x ", g.y, " x ", g.z, " blocks of ",
                                 threads, " threads with ", grid.shared_bytes, " bytes of shared memory"));
  }
  Block b;
  b.grid = grid;
  b.body = &body;
  b.shared = std::make_unique<SharedMemory>(grid.shared_bytes);
  b.fibers = std::vector<Fiber>(threads);
  for (Fiber& f : b.fibers) f.stack = std::make_unique_for_overwrite<char[]>(kStackBytes);
  Block* const outer = std::exchange(block, &b);
  struct Restore {
    Block* to;
    ~Restore() { block = to; }
  } const restore{outer};
  std::mt19937_64 draw(grid.seed);
  std::vector<uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::ranges::shuffle(order, draw);
  for (const uint64_t i : order) {
    b.index = {static_cast<unsigned>(i % g.x), static_cast<unsigned>(i / g.x % g.y),
               static_cast<unsigned>(i / (uint64_t{g.x} * g.y))};
    run_block(b, draw);
  }
}

}  // namespace inferkit::cuda_on_host
