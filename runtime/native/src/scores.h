// Logits become log-probabilities, and the best of them are found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor.h"

namespace lite {

/// A continuation: a hypothesis, its next token, and the sum of log-probabilities with it.
struct Candidate {
    size_t beam;
    int64_t token;
    float total;
};

/// Log-probabilities of each row into `scores`, of the same shape.
/// Throws Refusal for logits that are not finite; `position` is for its message.
void log_softmax(const Matrix& logits, int64_t position, std::vector<float>& scores);

/// The `most` best continuations, best first; of equal ones, the lower hypothesis, then the lower token.
/// `scores` are as many rows as `totals`, which they are added to.
std::vector<Candidate> best_of(const std::vector<float>& scores, const std::vector<float>& totals, size_t most);

}  // namespace lite
