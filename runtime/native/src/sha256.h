// SHA-256 (FIPS 180-4), so that a damaged file is refused before a runtime crashes on it.
#pragma once

#include <string>

namespace lite {

/// Hexadecimal SHA-256 of a file. Throws Refusal where it cannot be read.
std::string sha256_of(const std::string& path);

}  // namespace lite
