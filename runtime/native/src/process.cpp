#include "process.h"

#include <sys/resource.h>

#include <fstream>

namespace lite {

int64_t peak_rss() {
    // Not getrusage first: its peak begins with that of the process that started this one.
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        int64_t kilobytes = 0;
        if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

std::string abi() {
#if defined(__aarch64__)
    return "arm64-v8a";
#elif defined(__x86_64__)
    return "x86_64";
#else
#error "no name for this kind of processor"
#endif
}

}  // namespace lite
