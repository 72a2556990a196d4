#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "refusal.h"

namespace lite {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

bool identity(const std::vector<size_t>& rows, size_t before) {
    for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i] != i) return false;
    }
    return rows.size() == before;
}

}  // namespace

Search::Search(Session& session, const TokenIds& tokens, const SearchOptions& options, std::unique_ptr<State> state)
    : session_(session),
      tokens_(tokens),
      options_(options),
      state_(std::move(state)),
      // One hypothesis: all would be alike before the first token.
      beams_{{tokens.start}},
      totals_{0.0F} {}

bool Search::advance() {
    last_.clear();
    for (const Beam& beam : beams_) last_.push_back(beam.back());
    const auto position = static_cast<int64_t>(length());
    const Matrix logits = session_.step(last_, position, *state_);
    const auto outside = [&](int64_t token) { return token < 0 || token >= static_cast<int64_t>(logits.columns); };
    if (outside(tokens_.pad) || outside(tokens_.eos)) {
        throw Refusal("the manifest's token ids are outside the model's vocabulary: export the bundle again");
    }
    log_softmax(logits, position, scores_);
    forbid();
    const std::vector<Candidate> best = best_of(scores_, totals_, 2 * options_.beam);
    if (finish(best)) return false;
    go_on(best);
    return true;
}

Hypothesis Search::best() const {
    if (finished_.empty()) throw Refusal("the model ends no sentence: is it damaged?");
    const auto worse = [](const Hypothesis& a, const Hypothesis& b) { return a.score < b.score; };
    return *std::max_element(finished_.begin(), finished_.end(), worse);
}

void Search::forbid() {
    const size_t vocabulary = scores_.size() / beams_.size();
    for (size_t i = 0; i < beams_.size(); ++i) {
        float* scores = scores_.data() + i * vocabulary;
        const float ending = scores[tokens_.eos];
        scores[tokens_.pad] = kNever;
        if (length() < std::min(options_.min_length, options_.max_length)) scores[tokens_.eos] = kNever;
        forbid_repeats(beams_[i], scores);
        const bool full = length() >= options_.max_length;
        // A hypothesis left without any continuation may end.
        if (full || std::all_of(scores, scores + vocabulary, [](float score) { return score == kNever; })) {
            std::fill(scores, scores + vocabulary, kNever);
            scores[tokens_.eos] = ending;
        }
    }
}

void Search::forbid_repeats(const Beam& beam, float* scores) const {
    const size_t size = options_.no_repeat_ngram;
    if (size == 0 || beam.size() < size) return;
    const size_t context = size - 1;
    for (size_t start = 0; start + context < beam.size(); ++start) {
        const int64_t next = beam[start + context];
        if (next != tokens_.eos && std::equal(beam.end() - context, beam.end(), beam.begin() + start)) {
            scores[next] = kNever;
        }
    }
}

bool Search::finish(const std::vector<Candidate>& best) {
    bool stuck = true;
    for (size_t rank = 0; rank < best.size(); ++rank) {
        if (best[rank].total == kNever) break;
        if (best[rank].token != tokens_.eos) {
            stuck = false;
        } else if (rank < options_.beam && finished_.size() < options_.beam) {
            const Beam& beam = beams_[best[rank].beam];
            Hypothesis found{{beam.begin() + 1, beam.end()}, 0};
            found.tokens.push_back(tokens_.eos);
            const auto count = static_cast<double>(found.tokens.size());
            found.score = best[rank].total / std::pow(count, options_.length_penalty);
            finished_.push_back(std::move(found));
        }
    }
    return finished_.size() >= options_.beam || stuck || length() >= options_.max_length;
}

void Search::go_on(const std::vector<Candidate>& best) {
    std::vector<Candidate> chosen = best;
    const auto goes_on = [this](const Candidate& one) { return one.token != tokens_.eos; };
    std::stable_partition(chosen.begin(), chosen.end(), goes_on);
    chosen.resize(std::min(options_.beam, chosen.size()));
    std::vector<Beam> following;
    std::vector<size_t> rows;
    const size_t before = beams_.size();
    totals_.clear();
    for (const Candidate& one : chosen) {
        following.push_back(beams_[one.beam]);
        following.back().push_back(one.token);
        rows.push_back(one.beam);
        // Where too few go on, an ended one fills the place; it must never be continued.
        totals_.push_back(goes_on(one) ? one.total : kNever);
    }
    beams_ = std::move(following);
    if (!identity(rows, before)) state_ = session_.reorder(std::move(state_), rows);
}

Hypothesis translate(Session& session, const TokenIds& tokens, const SearchOptions& options,
                     const std::vector<int64_t>& source) {
    Search search(session, tokens, options, session.encode(Batch::of(source)));
    while (search.advance()) {
    }
    return search.best();
}

}  // namespace lite
