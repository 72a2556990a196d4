// What was found: the result of lite_runtime/runner_protocol.py.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "measure.h"
#include "replay.h"
#include "search.h"
#include "translation.h"

namespace lite {

struct Decoded {
    std::vector<Hypothesis> hypotheses;
};

struct Translated {
    std::vector<TranslatedText> texts;
};

struct Replayed {
    std::vector<Difference> differences;
};

struct Measured {
    double load;
    std::vector<Timing> timings;
};

using Result = std::variant<Decoded, Translated, Replayed, Measured>;

struct Answer {
    std::string runtime;
    std::string abi;
    int64_t peak_rss;
    Result result;
};

/// As JSON, which has no infinity: it is null.
std::string json_of(const Answer& answer);

}  // namespace lite
