// The seam: what a runtime must offer so that search, replay and timing are written once above it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tensor.h"

namespace lite {

/// A padded batch of sentences: tokens and mask (true at real tokens) of rows x length, row-major.
struct Batch {
    size_t rows;
    size_t length;
    std::vector<int64_t> tokens;
    std::vector<uint8_t> mask;

    /// One sentence, which needs no padding.
    static Batch of(const std::vector<int64_t>& sentence) {
        return {1, sentence.size(), sentence, std::vector<uint8_t>(sentence.size(), 1)};
    }
};

/// What a decode carries from step to step; each backend has its own kind.
class State {
public:
    virtual ~State() = default;
};

/// One loaded model. B rows (hypotheses), V target vocabulary. Methods throw Refusal where the runtime fails.
class Session {
public:
    virtual ~Session() = default;

    /// Run the encoder once: the state before the first target token.
    virtual std::unique_ptr<State> encode(const Batch& source) = 0;

    /// Advance the state by one target position: logits (B, V) of the next token, there until the next step.
    virtual Matrix step(const std::vector<int64_t>& tokens, int64_t position, State& state) = 0;

    /// The state whose row i is the old row rows[i]: beam search's move, and its expansion.
    virtual std::unique_ptr<State> reorder(std::unique_ptr<State> state, const std::vector<size_t>& rows) = 0;

    /// The state as the reference holds it: batch first, slots cut to those that count. What the runtime keeps out of
    /// reach is absent.
    virtual std::vector<Tensor> canonical(const State& state) = 0;
};

}  // namespace lite
