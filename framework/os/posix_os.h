// PosixOs: the real operating system, by epoll, eventfd, POSIX threads and getaddrinfo.
//
// Use PosixOs::Get() wherever an Os is asked for outside of tests. Threading, lifetime: as Os; Get() lives forever.
#ifndef TROUPE_OS_POSIX_OS_H_
#define TROUPE_OS_POSIX_OS_H_

#include "troupe/os/os.h"

namespace troupe {

class PosixOs {
 public:
  static Os& Get();
};

}  // namespace troupe

#endif  // TROUPE_OS_POSIX_OS_H_
