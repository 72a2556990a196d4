#include "executorch_session.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>

#include "executorch_log.h"
#include "executorch_threads.h"
#include "refusal.h"
#include "rows.h"

namespace lite {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

TensorPtr view(void* data, const Shape& shape, ScalarType type) {
    return from_blob(data, std::vector<SizesType>(shape.begin(), shape.end()), type);
}

/// Programs whose state one row holds; the row gives it back, to serve another.
using Pool = std::vector<std::unique_ptr<Module>>;

/// Explicit state in buffers of its own, as the program's memory is written over by the next call.
struct ExecutorchRow : Row {
    ExecutorchRow(std::vector<Tensor> state, Pool& idle, std::unique_ptr<Module> held)
        : tensors(std::move(state)), idle(idle), held(std::move(held)) {
        given.emplace_back(view(&token, {1}, ScalarType::Long));
        given.emplace_back(view(&position, {1}, ScalarType::Long));
        for (Tensor& tensor : tensors) {
            given.emplace_back(view(tensor.values.data(), tensor.shape, ScalarType::Float));
        }
        for (const TensorPtr& tensor : given) inputs.emplace_back(*tensor);
    }

    ~ExecutorchRow() override {
        if (held) idle.push_back(std::move(held));
    }

    int64_t token = 0;
    int64_t position = 0;
    std::vector<Tensor> tensors;
    Pool& idle;
    std::unique_ptr<Module> held;
    std::vector<TensorPtr> given;
    std::vector<EValue> inputs;
};

/// The slots of a tensor that count: all values, or of every block of `slots` slots the first `count`.
void copy_counted(const float* from, Tensor& to, const std::optional<int64_t>& slots, int64_t count) {
    const auto width = static_cast<size_t>(to.shape.empty() ? 1 : to.shape.back());
    const size_t block = slots ? static_cast<size_t>(*slots) * width : to.values.size();
    const size_t counted = slots ? static_cast<size_t>(std::min(count, *slots)) * width : block;
    for (size_t at = 0; at < to.values.size(); at += block) std::copy_n(from + at, counted, to.values.data() + at);
}

class ExecutorchProgram : public RowProgram {
public:
    ExecutorchProgram(const std::string& folder, const FormatEntry& entry)
        : file_(entry.step_file), program_(folder + "/" + entry.step_file, Module::LoadMode::Mmap) {
        for (const StateTensor& spec : entry.state) {
            if (!spec.held) explicit_.push_back(spec);
        }
        held_ = explicit_.size() < entry.state.size();
        check(program_.load(), "load");
        check(program_.load_method("encode"), "load");
        if (held_) {
            idle_.push_back(held_program());
        } else {
            check(program_.load_method("step"), "load");
        }
    }

    std::unique_ptr<Row> encode(const int64_t* source, const uint8_t* mask, size_t length) override {
        const Shape shape = {1, static_cast<int64_t>(length)};
        // ExecuTorch takes no data as constant, though it only reads it.
        const TensorPtr tokens = view(const_cast<int64_t*>(source), shape, ScalarType::Long);
        const TensorPtr real = view(const_cast<uint8_t*>(mask), shape, ScalarType::Bool);
        const std::vector<EValue> produced = run(program_, "encode", {EValue(*tokens), EValue(*real)});
        std::vector<Tensor> tensors;
        size_t next = 0;
        for (const StateTensor& spec : explicit_) {
            if (spec.initial) {
                const auto value = static_cast<float>(*spec.initial);
                tensors.push_back({spec.name, spec.shape, std::vector<float>(elements(spec.shape), value)});
                continue;
            }
            const auto tensor = output(produced, next++);
            const float* values = tensor.const_data_ptr<float>();
            tensors.push_back({spec.name, {tensor.sizes().begin(), tensor.sizes().end()},
                               {values, values + tensor.numel()}});
        }
        return std::make_unique<ExecutorchRow>(std::move(tensors), idle_, held_ ? take_held() : nullptr);
    }

    Matrix step(int64_t token, int64_t position, Row& state) override {
        auto& row = static_cast<ExecutorchRow&>(state);
        row.token = token;
        row.position = position;
        const std::vector<EValue> produced = run(row.held ? *row.held : program_, "step", row.inputs);
        size_t next = 1;
        for (size_t i = 0; i < explicit_.size(); ++i) {
            if (!explicit_[i].output) continue;
            const auto tensor = output(produced, next++);
            if (static_cast<size_t>(tensor.numel()) != row.tensors[i].values.size()) refuse("step", "a state's size");
            copy_counted(tensor.const_data_ptr<float>(), row.tensors[i], explicit_[i].slots, position + 1);
        }
        const auto logits = output(produced, 0);
        return {logits.const_data_ptr<float>(), 1, static_cast<size_t>(logits.numel())};
    }

    std::unique_ptr<Row> fork(const Row& row) override {
        const auto& from = static_cast<const ExecutorchRow&>(row);
        if (from.held) {
            throw Refusal(file_ + " keeps its state inside, and ExecuTorch cannot copy it: search greedily,"
                                  " or use the explicit cache for a beam");
        }
        return std::make_unique<ExecutorchRow>(from.tensors, idle_, nullptr);
    }

    std::vector<Tensor> tensors(const Row& row) override { return static_cast<const ExecutorchRow&>(row).tensors; }

private:
    std::unique_ptr<Module> held_program() {
        // Methods have memory of their own in each module; the program's bytes are shared.
        auto held = std::make_unique<Module>(program_.program());
        check(held->load_method("step"), "load");
        return held;
    }

    std::unique_ptr<Module> take_held() {
        if (idle_.empty()) return held_program();
        auto held = std::move(idle_.back());
        idle_.pop_back();
        return held;
    }

    std::vector<EValue> run(Module& module, const std::string& method, const std::vector<EValue>& inputs) {
        auto produced = module.execute(method, inputs);
        check(produced.error(), method);
        return std::move(*produced);
    }

    executorch::aten::Tensor output(const std::vector<EValue>& produced, size_t index) {
        if (index >= produced.size() || !produced[index].isTensor()) refuse("run", "too few outputs");
        const auto tensor = produced[index].toTensor();
        if (tensor.scalar_type() != ScalarType::Float) refuse("run", "an output that is not float32");
        return tensor;
    }

    void check(Error error, const std::string& what) const {
        if (error != Error::Ok) refuse(what, executorch_reason(static_cast<int>(error)));
    }

    [[noreturn]] void refuse(const std::string& what, const std::string& reason) const {
        throw Refusal("ExecuTorch cannot " + what + " " + file_ + ": " + reason +
                      "; copy the bundle again, or export it anew");
    }

    std::string file_;
    std::vector<StateTensor> explicit_;
    bool held_ = false;
    Module program_;
    Pool idle_;
};

}  // namespace

std::unique_ptr<Session> executorch_session(const std::string& folder, const FormatEntry& entry, int threads) {
    take_executorch_log();
    if (!set_executorch_threads(threads)) {
        throw Refusal("ExecuTorch cannot use " + std::to_string(threads) + " threads: ask for fewer");
    }
    return std::make_unique<RowSession>(std::make_unique<ExecutorchProgram>(folder, entry), entry.state);
}

std::string executorch_runtime() { return std::string("executorch ") + LITE_EXECUTORCH_VERSION; }

}  // namespace lite
