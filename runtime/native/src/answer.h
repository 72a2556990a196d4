// What was found: the result of lite_runtime/runner_protocol.py.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "measure.h"
#include "replay.h"
#include "search.h"

namespace lite {

struct Decoded {
    std::vector<Hypothesis> hypotheses;
};

struct Replayed {
    std::vector<Difference> differences;
};

struct Measured {
    double load;
    std::vector<Timing> timings;
};

struct Answer {
    std::string runtime;
    std::string abi;
    int64_t peak_rss;
    std::variant<Decoded, Replayed, Measured> result;
};

/// As JSON, which has no infinity: it is null.
std::string json_of(const Answer& answer);

}  // namespace lite
