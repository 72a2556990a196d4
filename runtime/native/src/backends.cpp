#include "backends.h"

#include "refusal.h"
#ifdef LITE_ONNX
#include "onnx_session.h"
#endif
#ifdef LITE_EXECUTORCH
#include "executorch_session.h"
#endif

namespace lite {

std::unique_ptr<Session> open_session(const std::string& folder, const FormatEntry& entry, int threads) {
#ifdef LITE_ONNX
    if (entry.format == "onnx") return onnx_session(folder, entry, threads);
#endif
#ifdef LITE_EXECUTORCH
    if (entry.format == "executorch") return executorch_session(folder, entry, threads);
#endif
    throw Refusal("this runner was built without " + entry.format + ": build it with that runtime");
}

std::string runtime_of(const FormatEntry& entry) {
#ifdef LITE_ONNX
    if (entry.format == "onnx") return onnx_runtime();
#endif
#ifdef LITE_EXECUTORCH
    if (entry.format == "executorch") return executorch_runtime();
#endif
    return entry.format;
}

}  // namespace lite
