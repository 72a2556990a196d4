// ExecuTorch as a Session: one program with the methods `encode` and `step`, a row at a time.
#pragma once

#include <memory>
#include <string>

#include "manifest.h"
#include "session.h"

namespace lite {

/// A bundle's executorch format, loaded. `threads` are of the delegate's pool.
/// Throws Refusal where the file is damaged or made for another version.
std::unique_ptr<Session> executorch_session(const std::string& folder, const FormatEntry& entry, int threads);

/// The library's name and version.
std::string executorch_runtime();

}  // namespace lite
