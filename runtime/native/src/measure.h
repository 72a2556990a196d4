// Times of greedy decodes, taken inside the process with a monotonic clock.
#pragma once

#include <chrono>
#include <vector>

#include "request.h"
#include "search.h"
#include "session.h"

namespace lite {

/// Milliseconds of a monotonic clock since it was made.
class Stopwatch {
public:
    double milliseconds() const {
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Milliseconds of one sentence: the encoder, each token with its choice, and the whole.
struct Timing {
    double encode;
    std::vector<double> steps;
    double sentence;
};

/// Time every sentence once, after the warm-up.
std::vector<Timing> measure(Session& session, const TokenIds& tokens, const Measure& task);

}  // namespace lite
