#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "base/counted.h"
#include "base/error.h"
#include "bindings/arguments.h"
#include "bindings/bound.h"
#include "bindings/static_method.h"
#include "memory/buffer_pool.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

/// A Buffer as Python sees it: it may not go back to the pool while views of its memory live. Guarded by the GIL.
struct PyBuffer {
  Buffer buffer;
  size_t nbytes = 0;
  size_t views = 0;

  void release() {
    if (views != 0) {
      PyErr_Format(PyExc_BufferError, "the buffer has %zu live views (numpy arrays or memoryviews); delete them first",
                   views);
      throw py::error_already_set();
    }
    buffer.release();
  }
};

int get_view(PyObject* self, Py_buffer* view, int flags) {
  view->obj = nullptr;
  PyBuffer* const buffer = bound_or_null<PyBuffer>(self);
  if (!buffer) {  // of a class that derives from this one and another
    PyErr_SetString(PyExc_TypeError, "this Buffer is not initialised: only a BufferPool makes one");
    return -1;
  }
  if (!buffer->buffer) {
    PyErr_SetString(PyExc_BufferError, "the buffer was released");
    return -1;
  }
  const int failed =
      PyBuffer_FillInfo(view, self, buffer->buffer.data(), static_cast<Py_ssize_t>(buffer->nbytes), 0, flags);
  if (failed == 0) ++buffer->views;
  return failed;
}

void release_view(PyObject* self, Py_buffer*) { --py::cast<PyBuffer&>(py::handle(self)).views; }

constexpr const char* kBufferDoc = R"(Memory on loan from a :class:`BufferPool`.

It supports the buffer protocol as writable, contiguous bytes, which are aligned to 64 bytes and not initialised; numpy
can view it without a copy. The memory goes back to the pool with :meth:`release`, at the end of a ``with`` block, or when
the last reference to the buffer and to its views is gone, whichever comes first.

Examples
--------
>>> import inferkit, numpy as np
>>> pool = inferkit.BufferPool()
>>> with pool.acquire(4 * 6) as buffer:
...     x = np.frombuffer(buffer, np.float32).reshape(2, 3)
...     x[:] = 1.5
...     total = float(x.sum())
...     del x
>>> total
9.0
>>> buffer.released
True
)";

constexpr const char* kPoolDoc =
    R"(Memory for buffers that come and go often: size classes, per-thread caches, a hard cap.

It is safe to use from many threads. After warm-up it does not ask the system for memory any more. Buffers that are in
use keep their memory when the pool object is gone.

Parameters
----------
max_bytes : int, optional
    Hard cap on the bytes held from the system, in use and cached together; none by default.
thread_cache_bytes : int
    Free memory that one thread keeps for itself.
shared_cache_bytes : int
    Free memory that all threads share. Memory beyond that goes back to the system.

Raises
------
ValueError
    If a size is negative, or the cap is smaller than the smallest buffer (64 bytes).

Examples
--------
>>> import inferkit
>>> pool = inferkit.BufferPool(max_bytes=1 << 20)
>>> a = pool.acquire(1000)
>>> pool.stats().in_use_bytes, pool.stats().outstanding
(1024, 1)
>>> a.release()
>>> pool.stats().cached_bytes, pool.trim()
(1024, 1024)
)";

constexpr const char* kAcquireDoc = R"(Lend a buffer of ``nbytes`` bytes.

Parameters
----------
nbytes : int
    The size of the buffer. The pool sets aside the next size class, which is less than 25% larger (from 256 bytes on).

Returns
-------
Buffer
    Writable and not initialised.

Raises
------
PoolExhaustedError
    If the cap, or the system's memory, does not allow it even after every cache has been emptied.
ValueError
    If ``nbytes`` is negative.
)";

constexpr const char* kStatsDoc = R"(Take a snapshot of the pool's figures.

Returns
-------
PoolStats
    A frozen object. It counts the bytes that are set aside (the size class), not those that were asked for.
)";

constexpr const char* kLeaksDoc = R"(List the buffers that are in use, by user and size class, most bytes first.

Returns
-------
list of LeakRow

Examples
--------
>>> import inferkit
>>> pool = inferkit.BufferPool()
>>> kept = pool.acquire(100)
>>> pool.leaks()
[LeakRow(tag='python', capacity=128, count=1, bytes=100)]
)";

void bind_figures(py::module_& m) {
  py::class_<PoolStats>(m, "PoolStats", py::custom_type_setup(made_elsewhere),
                        "A snapshot of a :class:`BufferPool`'s figures.")
      .def_readonly("in_use_bytes", &PoolStats::in_use_bytes, "Bytes set aside for buffers that are in use.")
      .def_readonly("cached_bytes", &PoolStats::cached_bytes,
                    "Bytes that the pool holds from the system and that are free.")
      .def_readonly("peak_bytes", &PoolStats::peak_bytes, "The most bytes ever held at once, in use and cached.")
      .def_property_readonly(
          "max_bytes",
          [](const PoolStats& s) { return s.max_bytes ? std::optional<size_t>(s.max_bytes) : std::nullopt; },
          "The cap in bytes; None if there is none.")
      .def_readonly("hits", &PoolStats::hits, "How many acquisitions a cache served.")
      .def_readonly("misses", &PoolStats::misses, "How many acquisitions asked the system for memory.")
      .def_readonly("outstanding", &PoolStats::outstanding, "How many buffers are in use.")
      .def("__reduce__",
           [](const PoolStats& s) {
             return reduced("_pool_stats", s.in_use_bytes, s.cached_bytes, s.peak_bytes, s.max_bytes, s.hits, s.misses,
                            s.outstanding);
           })
      .def("__repr__", [](const PoolStats& s) {
        return cat("PoolStats(in_use_bytes=", s.in_use_bytes, ", cached_bytes=", s.cached_bytes,
                   ", peak_bytes=", s.peak_bytes, ", max_bytes=", s.max_bytes ? std::to_string(s.max_bytes) : "None",
                   ", hits=", s.hits, ", misses=", s.misses, ", outstanding=", s.outstanding, ")");
      });

  m.def(
      "_pool_stats",
      [](size_t in_use, size_t cached, size_t peak, size_t most, uint64_t hits, uint64_t misses, size_t outstanding) {
        return PoolStats{in_use, cached, peak, most, hits, misses, outstanding};
      },
      "What a copy of a PoolStats is made by.");

  py::class_<LeakRow>(m, "LeakRow", py::custom_type_setup(made_elsewhere),
                      "Buffers in use, of one user and one size class.")
      .def_readonly("tag", &LeakRow::tag, "Who acquired them: ``python``, or a part of inferkit.")
      .def_readonly("capacity", &LeakRow::capacity, "Bytes set aside for each.")
      .def_readonly("count", &LeakRow::count, "How many buffers.")
      .def_readonly("bytes", &LeakRow::bytes, "The bytes that were asked for, in all.")
      .def("__repr__", [](const LeakRow& row) {
        return cat("LeakRow(tag='", row.tag, "', capacity=", row.capacity, ", count=", row.count, ", bytes=", row.bytes,
                   ")");
      });
}

}  // namespace

void bind_buffer_pool(py::module_& m) {
  bind_figures(m);

  // The slots themselves: pybind11's own buffer support does not say when a view ends.
  const py::custom_type_setup slots([](PyHeapTypeObject* type) {
    type->as_buffer.bf_getbuffer = get_view;
    type->as_buffer.bf_releasebuffer = release_view;
    type->ht_type.tp_as_buffer = &type->as_buffer;
    made_elsewhere(type);  // only a pool makes buffers
  });
  py::class_<PyBuffer>(m, "Buffer", slots, kBufferDoc)
      .def("release", &PyBuffer::release,
           "Give the memory back to the pool now. A second call does nothing.\n\nRaises\n------\nBufferError\n    If a "
           "numpy "
           "array or a memoryview still looks at it.\n")
      .def_readonly("nbytes", &PyBuffer::nbytes, "The size that was asked for, in bytes.")
      .def_property_readonly(
          "capacity", [](const PyBuffer& b) { return b.buffer.capacity(); },
          "The bytes that are set aside for it; 0 after it was released.")
      .def_property_readonly(
          "released", [](const PyBuffer& b) { return !b.buffer; }, "Whether the memory has gone back to the pool.")
      .def("__len__", [](const PyBuffer& b) { return b.nbytes; })
      .def(
          "__enter__",
          [](py::object self) {
            bound<PyBuffer>(self.ptr());
            return self;
          },
          "Give the buffer itself, which goes back at the end of the with block.")
      .def(
          "__exit__",
          [](PyBuffer& b, const py::object& exc_type, const py::object&, const py::object&) {
            // An error on its way out holds frames and so views: it goes first, and the memory follows with them.
            if (b.views == 0 || exc_type.is_none()) b.release();
          },
          "exc_type"_a, "exc"_a, "traceback"_a, "Release the buffer.")
      .def("__repr__", [](const PyBuffer& b) {
        return cat("<inferkit.Buffer of ", counted(b.nbytes, "byte"), b.buffer ? "" : ", released", ">");
      });

  py::class_<BufferPool, std::shared_ptr<BufferPool>> of(m, "BufferPool", py::custom_type_setup(with_new), kPoolDoc);
  StaticMethod<struct DefaultTag>::define(
      of, "default",
      py::cpp_function([] { return BufferPool::process_default(); }, py::name("default"), py::scope(of),
                       "Get the pool of the process, from which models and batchers take their memory."));
  of.def(py::init([](const Given<std::optional<py::ssize_t>>& max_bytes, const Given<py::ssize_t>& thread_cache_bytes,
                     const Given<py::ssize_t>& shared_cache_bytes) {
           const auto bytes = [](int64_t size) { return static_cast<size_t>(size); };
           return std::make_shared<BufferPool>(
               PoolOptions{.max_bytes = bytes(integer_or(0, max_bytes, "max_bytes", 64)),
                           .thread_cache_bytes = bytes(integer(thread_cache_bytes, "thread_cache_bytes", 0)),
                           .shared_cache_bytes = bytes(integer(shared_cache_bytes, "shared_cache_bytes", 0))});
         }),
         "max_bytes"_a = py::none(), py::kw_only(),
         "thread_cache_bytes"_a = static_cast<py::ssize_t>(PoolOptions{}.thread_cache_bytes),
         "shared_cache_bytes"_a = static_cast<py::ssize_t>(PoolOptions{}.shared_cache_bytes))
      .def(
          "acquire",
          // Keeps the GIL: it takes less time than letting go of it, and waits for nobody who might want it.
          [](BufferPool& pool, const Given<py::ssize_t>& nbytes) {
            const auto bytes = static_cast<size_t>(integer(nbytes, "nbytes", 0));
            return PyBuffer{pool.acquire(bytes, "python"), bytes};
          },
          "nbytes"_a, kAcquireDoc)
      .def("stats", &BufferPool::stats, kStatsDoc)
      .def("trim", &BufferPool::trim, py::call_guard<py::gil_scoped_release>(),
           "Give all cached memory back to the system.\n\nReturns\n-------\nint\n    How many bytes went back.\n")
      .def("leaks", &BufferPool::leaks, kLeaksDoc)
      .def("__repr__", [](const BufferPool& self) {
        const PoolStats s = self.stats();
        return cat("<inferkit.BufferPool: ", counted(s.outstanding, "buffer"), " out, ",
                   counted(s.in_use_bytes, "byte"), " in use, ", s.cached_bytes, " cached>");
      });
  require_init<PoolStats>();
  require_init<LeakRow>();
  require_init<PyBuffer>();
  require_init<BufferPool>();
}

}  // namespace inferkit
