// ONNX Runtime as a Session: two graphs of a bundle, the state in its own values from step to step.
#pragma once

#include <memory>
#include <string>

#include "manifest.h"
#include "session.h"

namespace lite {

/// A bundle's onnx format, loaded. Throws Refusal where ONNX Runtime refuses a graph.
std::unique_ptr<Session> onnx_session(const std::string& folder, const FormatEntry& entry, int threads);

/// The library's name and version.
std::string onnx_runtime();

}  // namespace lite
