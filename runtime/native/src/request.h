// What to do: the request of lite_runtime/runner_protocol.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace lite {

constexpr int64_t kProtocolVersion = 1;

struct Sentence {
    std::vector<int64_t> source;
    int64_t max_length;
};

/// Translate sentences, one at a time.
struct Decode {
    std::vector<Sentence> sentences;
    int64_t beam;
    double length_penalty;
    int64_t no_repeat_ngram;
};

/// Translate texts; what is absent is as the manifest says.
struct Translate {
    std::vector<std::string> texts;
    std::optional<int64_t> beam;
    std::optional<double> length_penalty;
    std::optional<int64_t> no_repeat_ngram;
    std::optional<int64_t> max_length;
    int64_t min_length;
};

/// Compare with the bundle's golden steps.
struct Replay {};

/// Time greedy decodes of exactly `tokens` tokens.
struct Measure {
    std::vector<std::vector<int64_t>> sources;
    int64_t tokens;
    int64_t warm_up;
};

using Task = std::variant<Decode, Translate, Replay, Measure>;

struct Request {
    std::string bundle;
    std::string format;
    std::string precision;
    std::string cache;
    int threads;
    Task task;
};

/// Read a request. Throws Refusal: unreadable, another version, or a field that is missing, unknown or out of range.
Request read_request(const std::string& path);

}  // namespace lite
