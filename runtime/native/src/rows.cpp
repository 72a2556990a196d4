#include "rows.h"

namespace lite {
namespace {

struct RowState : State {
    std::vector<std::unique_ptr<Row>> rows;
    int64_t position = -1;
};

/// Appends one row's tensor, cut to its first `count` slots (the last axis but one).
void append(Tensor& whole, const Tensor& row, int64_t count) {
    const auto rank = row.shape.size();
    const auto width = static_cast<size_t>(row.shape[rank - 1]);
    const size_t kept = static_cast<size_t>(count) * width, all = static_cast<size_t>(row.shape[rank - 2]) * width;
    for (size_t at = 0; at < row.values.size(); at += all) {
        whole.values.insert(whole.values.end(), row.values.begin() + at, row.values.begin() + at + kept);
    }
}

}  // namespace

RowSession::RowSession(std::unique_ptr<RowProgram> program, const std::vector<StateTensor>& specs)
    : program_(std::move(program)) {
    for (const StateTensor& spec : specs) {
        if (!spec.held) explicit_.push_back(spec);
    }
}

std::unique_ptr<State> RowSession::encode(const Batch& source) {
    auto state = std::make_unique<RowState>();
    for (size_t row = 0; row < source.rows; ++row) {
        const size_t start = row * source.length;
        state->rows.push_back(
            program_->encode(source.tokens.data() + start, source.mask.data() + start, source.length));
    }
    return state;
}

Matrix RowSession::step(const std::vector<int64_t>& tokens, int64_t position, State& state) {
    auto& rows = static_cast<RowState&>(state);
    rows.position = position;
    // A single row's logits are read where they are.
    if (tokens.size() == 1) return program_->step(tokens.front(), position, *rows.rows.front());
    logits_.clear();
    size_t columns = 0;
    for (size_t row = 0; row < tokens.size(); ++row) {
        const Matrix logits = program_->step(tokens[row], position, *rows.rows[row]);
        logits_.insert(logits_.end(), logits.data, logits.data + logits.columns);
        columns = logits.columns;
    }
    return {logits_.data(), tokens.size(), columns};
}

std::unique_ptr<State> RowSession::reorder(std::unique_ptr<State> state, const std::vector<size_t>& rows) {
    auto& before = static_cast<RowState&>(*state);
    auto after = std::make_unique<RowState>();
    after->position = before.position;
    after->rows.resize(rows.size());
    std::vector<const Row*> moved(before.rows.size(), nullptr);
    for (size_t i = 0; i < rows.size(); ++i) {
        // A row goes to the first that wants it; others get copies of it.
        if (const Row* there = moved[rows[i]]) {
            after->rows[i] = program_->fork(*there);
        } else {
            moved[rows[i]] = before.rows[rows[i]].get();
            after->rows[i] = std::move(before.rows[rows[i]]);
        }
    }
    return after;
}

std::vector<Tensor> RowSession::canonical(const State& state) {
    const auto& rows = static_cast<const RowState&>(state);
    std::vector<Tensor> result;
    for (const auto& row : rows.rows) {
        const std::vector<Tensor> tensors = program_->tensors(*row);
        for (size_t i = 0; i < tensors.size(); ++i) {
            const Tensor& tensor = tensors[i];
            const auto& slots = explicit_[i].slots;
            if (i == result.size()) {
                result.push_back({tensor.name, {static_cast<int64_t>(rows.rows.size())}, {}});
                result[i].shape.insert(result[i].shape.end(), tensor.shape.begin(), tensor.shape.end());
                if (slots) result[i].shape[tensor.shape.size() - 1] = rows.position + 1;
            }
            if (slots) {
                append(result[i], tensor, rows.position + 1);
            } else {
                result[i].values.insert(result[i].values.end(), tensor.values.begin(), tensor.values.end());
            }
        }
    }
    return result;
}

}  // namespace lite
