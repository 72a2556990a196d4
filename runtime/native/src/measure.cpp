#include "measure.h"

namespace lite {
namespace {

Timing time_sentence(Session& session, const TokenIds& tokens, const SearchOptions& options,
                     const std::vector<int64_t>& source) {
    Timing timing{0, {}, 0};
    timing.steps.reserve(options.max_length + 1);
    const Batch batch = Batch::of(source);
    const Stopwatch whole;
    Search search(session, tokens, options, session.encode(batch));
    timing.encode = whole.milliseconds();
    for (bool more = true; more;) {
        const Stopwatch step;
        more = search.advance();
        timing.steps.push_back(step.milliseconds());
    }
    timing.sentence = whole.milliseconds();
    return timing;
}

}  // namespace

std::vector<Timing> measure(Session& session, const TokenIds& tokens, const Measure& task) {
    // Lengths do not count eos, the number of tokens does.
    SearchOptions options;
    options.min_length = options.max_length = static_cast<size_t>(task.tokens - 1);
    for (int64_t i = 0; i < task.warm_up; ++i) time_sentence(session, tokens, options, task.sources.front());
    std::vector<Timing> timings;
    for (const auto& source : task.sources) timings.push_back(time_sentence(session, tokens, options, source));
    return timings;
}

}  // namespace lite
