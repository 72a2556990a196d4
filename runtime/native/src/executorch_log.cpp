#include "executorch_log.h"

#include <executorch/runtime/platform/platform.h>

namespace lite {
namespace {

std::string& last_error() {
    static std::string message;
    return message;
}

void keep(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* message,
          size_t length) {
    if (level == et_pal_log_level_t::kError || level == et_pal_log_level_t::kFatal) {
        last_error().assign(message, length);
    }
}

}  // namespace

void take_executorch_log() {
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(keep, __FILE__));
}

std::string executorch_reason(int error) {
    std::string message;
    message.swap(last_error());
    return message.empty() ? "error " + std::to_string(error) : message;
}

}  // namespace lite
