#include "batching/client.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

constexpr size_t kLongestName = 256;  // bytes
constexpr size_t kFewStrands = 64;

ClientOptions checked(ClientOptions o, const std::string& name) {
  const auto require = [&](bool holds, const char* what, double got) {
    if (!holds) throw std::invalid_argument(cat("client ", quote(name), ": ", what, ", got ", got));
  };
  require(o.weight >= 1e-3 && o.weight <= 1e3, "weight must be between 0.001 and 1000", o.weight);
  require(o.rate == 0 || (o.rate >= 1e-6 && o.rate <= 1e9), "rate must be between 0.000001 and 1e9 requests a second",
          o.rate);
  if (o.burst == 0) o.burst = std::max(1.0, o.rate);
  require(o.burst >= 1 && o.burst <= 1e9, "burst must be between 1 and 1e9 requests", o.burst);
  return o;
}

const std::string& checked_name(const std::string& name) {
  if (name.empty()) throw std::invalid_argument("the name of a client must not be empty");
  if (name.size() > kLongestName) {
    throw std::invalid_argument(
        cat("the name of a client has at most ", kLongestName, " bytes of UTF-8, got ", name.size()));
  }
  return name;
}

}  // namespace

RateLimit::RateLimit(double rate, double burst)
    : each_(rate > 0 ? std::max<Nanos>(1, std::llround(1e9 / rate)) : 0),
      ahead_(static_cast<Nanos>(std::min((burst - 1) * double(each_), double(kNever / 4)))) {}

Nanos RateLimit::take(Nanos now) noexcept {
  if (each_ == 0) return 0;
  Nanos seen = full_at_.load(std::memory_order_relaxed);
  for (;;) {
    const Nanos at = std::max(seen, now);
    if (at - now > ahead_) return at - now - ahead_;
    if (full_at_.compare_exchange_weak(seen, at + each_, std::memory_order_relaxed)) return 0;
  }
}

Client::Client(std::string name_, const ClientOptions& options_, bool configured_)
    : name(std::move(name_)),
      options(checked(options_, name)),
      configured(configured_),
      full_(kFewStrands),
      limit_(options.rate, options.burst) {}

StrandRef Client::strand(const RowLayout& layout, int priority) {
  const MutexLock lock(mutex_);
  for (const Known& known : strands_) {
    if (known.layout == &layout && known.priority == priority) return known.strand;
  }
  if (strands_.size() >= full_) {
    // Nobody but this call can take a reference to one that only the list refers to.
    std::erase_if(strands_, [](const Known& known) { return known.strand->references() == 1; });
    full_ = std::max(kFewStrands, 2 * strands_.size());
  }
  const auto at = std::ranges::find(flows_, priority, &Flow::priority);
  Flow& flow = at != flows_.end() ? *at : flows_.emplace_back(options.weight, priority);
  return strands_.emplace_back(Known{&layout, priority, StrandRef(new Strand(flow))}).strand;
}

Nanos Client::arrives(Nanos now) noexcept {
  submitted_.fetch_add(1, std::memory_order_relaxed);
  const Nanos wait = limit_.take(now);
  if (wait > 0) refused();
  return wait;
}

void Client::answered(int64_t rows) noexcept {
  answered_.fetch_add(1, std::memory_order_relaxed);
  rows_.fetch_add(static_cast<uint64_t>(rows), std::memory_order_relaxed);
}

ClientFigures Client::figures() const {
  const auto get = [](const auto& count) { return count.load(std::memory_order_relaxed); };
  return {name, configured, get(submitted_), get(answered_), get(refused_), get(rows_), get(held_)};
}

ClientTable::ClientTable(const Configured& configured, const ClientOptions& otherwise, const Clock& clock)
    : otherwise_(checked(otherwise, "by default")),
      clock_(clock),
      anonymous_(new Client("", {.weight = otherwise.weight}, false)) {
  if (configured.size() > kMost) {
    throw std::invalid_argument(cat("at most ", kMost, " clients can be configured, got ", configured.size()));
  }
  const MutexLock lock(mutex_);
  for (const auto& [name, options] : configured) {
    table_.insert_or_assign(checked_name(name), Entry{ClientRef(new Client(name, options, true))});
  }
  configured_ = table_.size();
  in_use_ = configured_ > 0;
}

size_t ClientTable::forget_idle(bool also_used, Nanos now) {
  return std::erase_if(table_, [&](const auto& item) {
    const auto& [client, used] = item.second;
    return !client->configured && (also_used || !used) && client->idle(now);
  });
}

/// Forgets those that have not been seen since the last look; where there is none, all that are idle.
void ClientTable::make_room() {
  const Nanos now = clock_.now();
  if (forget_idle(false, now) == 0) forget_idle(true, now);
  for (auto& [name, entry] : table_) entry.used = false;
}

ClientRef ClientTable::find(std::string_view name) {
  const MutexLock lock(mutex_);
  if (const auto at = table_.find(name); at != table_.end()) {
    at->second.used = true;
    return at->second.client;
  }
  std::string made(checked_name(std::string(name)));
  if (table_.size() - configured_ >= kMost) make_room();
  if (table_.size() - configured_ >= kMost) {
    throw Error(ErrorCode::kQueueFull, cat("client ", quote(made), " is one too many: ", kMost,
                                           " others have requests waiting, or have used "
                                           "up their rate; give fewer names, such as one for each group of users"));
  }
  ClientRef client(new Client(made, otherwise_, false));
  table_.emplace(std::move(made), Entry{client});
  in_use_.store(true, std::memory_order_release);
  return client;
}

std::vector<ClientFigures> ClientTable::figures() const {
  std::vector<ClientFigures> out;
  {
    const MutexLock lock(mutex_);
    out.reserve(table_.size());
    for (const auto& [name, entry] : table_) out.push_back(entry.client->figures());
  }
  std::ranges::sort(out, {}, &ClientFigures::name);
  return out;
}

}  // namespace inferkit
