// What ExecuTorch logs as an error says more than the number it returns: it is kept for our message.
#pragma once

#include <string>

namespace lite {

/// Keep ExecuTorch's log from stderr from now on.
void take_executorch_log();

/// The last error logged, and forget it; the number where there was none.
std::string executorch_reason(int error);

}  // namespace lite
