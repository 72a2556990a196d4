// Greedy and beam search over any Session, one sentence at a time: what lite_runtime/search.py does, step for step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "manifest.h"
#include "scores.h"
#include "session.h"

namespace lite {

/// How to search. Lengths count target tokens before eos; a beam of 1 is greedy search.
struct SearchOptions {
    size_t beam = 1;
    double length_penalty = 1.0;
    size_t min_length = 1;
    size_t max_length = 1;
    size_t no_repeat_ngram = 0;
};

/// A finished output: tokens, eos included, and its score after the length penalty.
struct Hypothesis {
    std::vector<int64_t> tokens;
    double score;
};

/// The search of one sentence, advanced a target position at a time.
class Search {
public:
    /// `state` is the session's after the encoder. The session must outlive the search.
    Search(Session& session, const TokenIds& tokens, const SearchOptions& options, std::unique_ptr<State> state);

    /// One position further: a step of the model and the choice after it. False when the sentence is done.
    bool advance();

    /// The best finished hypothesis.
    Hypothesis best() const;

private:
    // Of one hypothesis: its tokens, the start token first.
    using Beam = std::vector<int64_t>;

    size_t length() const { return beams_.front().size() - 1; }
    void forbid();
    void forbid_repeats(const Beam& beam, float* scores) const;
    bool finish(const std::vector<Candidate>& best);
    void go_on(const std::vector<Candidate>& best);

    Session& session_;
    TokenIds tokens_;
    SearchOptions options_;
    std::unique_ptr<State> state_;
    std::vector<Beam> beams_;
    std::vector<float> totals_;
    std::vector<float> scores_;
    std::vector<int64_t> last_;
    std::vector<Hypothesis> finished_;
};

/// The best translation of a sentence.
Hypothesis translate(Session& session, const TokenIds& tokens, const SearchOptions& options,
                     const std::vector<int64_t>& source);

}  // namespace lite
