// What the process knows of itself.
#pragma once

#include <cstdint>
#include <string>

namespace lite {

/// The most memory this process ever had resident, in bytes.
int64_t peak_rss();

/// Android's name for the kind of processor this was built for.
std::string abi();

}  // namespace lite
