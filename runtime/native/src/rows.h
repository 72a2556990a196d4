// A Session over a program that takes one row at a time, as lite_runtime/rows.py has it.
#pragma once

#include <memory>
#include <vector>

#include "manifest.h"
#include "session.h"

namespace lite {

/// One row's state; each program has its own kind.
class Row {
public:
    virtual ~Row() = default;
};

/// What a runtime offers for one row. Methods throw Refusal where it fails.
class RowProgram {
public:
    virtual ~RowProgram() = default;

    /// Run the encoder: the state of one sentence before the first target token.
    virtual std::unique_ptr<Row> encode(const int64_t* source, const uint8_t* mask, size_t length) = 0;

    /// One token further: a matrix of one row of logits, there until the next step.
    virtual Matrix step(int64_t token, int64_t position, Row& row) = 0;

    /// A copy of a row.
    virtual std::unique_ptr<Row> fork(const Row& row) = 0;

    /// The row's explicit state, all slots.
    virtual std::vector<Tensor> tensors(const Row& row) = 0;
};

/// Runs a program row after row.
class RowSession : public Session {
public:
    RowSession(std::unique_ptr<RowProgram> program, const std::vector<StateTensor>& specs);

    std::unique_ptr<State> encode(const Batch& source) override;
    Matrix step(const std::vector<int64_t>& tokens, int64_t position, State& state) override;
    std::unique_ptr<State> reorder(std::unique_ptr<State> state, const std::vector<size_t>& rows) override;
    std::vector<Tensor> canonical(const State& state) override;

private:
    std::unique_ptr<RowProgram> program_;
    std::vector<StateTensor> explicit_;
    std::vector<float> logits_;
};

}  // namespace lite
