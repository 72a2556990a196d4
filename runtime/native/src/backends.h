// The runtimes this program was built with.
#pragma once

#include <memory>
#include <string>

#include "manifest.h"
#include "session.h"

namespace lite {

/// One of a bundle's formats, loaded. Throws Refusal where the program was built without its runtime.
std::unique_ptr<Session> open_session(const std::string& folder, const FormatEntry& entry, int threads);

/// Name and version of the runtime that runs a format.
std::string runtime_of(const FormatEntry& entry);

}  // namespace lite
