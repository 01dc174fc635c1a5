// The tiles of AMX are 8 KiB of registers for each thread, which Linux saves for processes alone that asked for it.
#pragma once

namespace inferkit {

/// Whether this process may use tiles. The first call asks for the permission, which lasts for all threads and for what
/// they fork; where the system refuses it (a thread has an alternate signal stack that is too small for them, or the
/// kernel is older than 5.16) it is not asked again.
bool may_use_tiles();

}  // namespace inferkit
