#include "onnx_session.h"

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "refusal.h"

namespace lite {
namespace {

// All that is used here is in every library since 1.22; the headers would ask for one as new as themselves.
constexpr uint32_t kApi = 22;
// Of the values a step is fed, the state's come after the tokens and the position.
constexpr size_t kFirstState = 2;

struct OnnxState : State {
    size_t rows = 0;
    std::vector<int64_t> tokens;
    int64_t position = 0;
    std::vector<Ort::Value> fed;  // what the next step reads, in the order of its names
};

/// A session's or a run's own errors become ours.
template <typename Work>
auto guarded(const std::string& what, Work work) {
    try {
        return work();
    } catch (const Ort::Exception& error) {
        throw Refusal("ONNX Runtime cannot " + what + ": " + error.what());
    }
}

void init_api() {
    const OrtApi* api = OrtGetApiBase()->GetApi(kApi);
    if (api == nullptr) throw Refusal("this ONNX Runtime is older than 1." + std::to_string(kApi) + ": use a newer");
    Ort::InitApi(api);
}

Ort::Env quiet_env() {
    // Builds for Linux since 1.31 upload telemetry; the variable keeps it from being set up at all.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    init_api();
    // Errors are thrown, with the same words.
    Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "lite_runner");
    env.DisableTelemetryEvents();
    return env;
}

class OnnxSession : public Session {
public:
    OnnxSession(const std::string& folder, const FormatEntry& entry, int threads)
        : env_(quiet_env()),
          specs_(entry.state),
          encode_(load(folder + "/" + entry.encode_file, threads)),
          step_(load(folder + "/" + entry.step_file, threads)) {
        for (size_t i = 0; i < specs_.size(); ++i) {
            if (!specs_[i].batch_axis) throw Refusal("the manifest gives " + specs_[i].name + " no batch axis");
            step_inputs_.push_back(specs_[i].name.c_str());
            if (specs_[i].output) {
                step_outputs_.push_back(specs_[i].output->c_str());
                changing_.push_back(kFirstState + i);
            }
            if (!specs_[i].initial) encode_outputs_.push_back(specs_[i].name.c_str());
        }
    }

    std::unique_ptr<State> encode(const Batch& source) override {
        return guarded("encode", [&] { return encoded(source); });
    }

    Matrix step(const std::vector<int64_t>& tokens, int64_t position, State& state) override {
        return guarded("step", [&] { return stepped(tokens, position, static_cast<OnnxState&>(state)); });
    }

    std::unique_ptr<State> reorder(std::unique_ptr<State> state, const std::vector<size_t>& rows) override {
        auto& before = static_cast<OnnxState&>(*state);
        auto after = fresh(rows.size());
        for (size_t i = 0; i < specs_.size(); ++i) {
            after->fed.push_back(taken(before.fed[kFirstState + i], specs_[i], rows));
        }
        return after;
    }

    std::vector<Tensor> canonical(const State& state) override {
        std::vector<Tensor> tensors;
        for (size_t i = 0; i < specs_.size(); ++i) {
            const Ort::Value& value = static_cast<const OnnxState&>(state).fed[kFirstState + i];
            const Shape shape = shape_of(value);
            const float* from = value.GetTensorData<float>();
            tensors.push_back({specs_[i].name, shape, {from, from + elements(shape)}});
        }
        return tensors;
    }

private:
    Ort::Session load(const std::string& path, int threads) const {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        return guarded("load " + path, [&] { return Ort::Session(env_, path.c_str(), options); });
    }

    /// A state with its tokens and position; what it carries is to be added.
    std::unique_ptr<OnnxState> fresh(size_t rows) const {
        auto state = std::make_unique<OnnxState>();
        state->rows = rows;
        state->tokens.resize(rows);
        const Shape shape = {static_cast<int64_t>(rows)}, one = {1};
        state->fed.push_back(Ort::Value::CreateTensor(memory_, state->tokens.data(), rows, shape.data(), 1));
        state->fed.push_back(Ort::Value::CreateTensor(memory_, &state->position, 1, one.data(), 1));
        return state;
    }

    std::unique_ptr<State> encoded(const Batch& source) {
        const Shape shape = {static_cast<int64_t>(source.rows), static_cast<int64_t>(source.length)};
        // ONNX Runtime takes no data as constant, though it only reads it.
        auto* tokens = const_cast<int64_t*>(source.tokens.data());
        auto* mask = reinterpret_cast<bool*>(const_cast<uint8_t*>(source.mask.data()));
        const std::array<Ort::Value, 2> fed = {
            Ort::Value::CreateTensor(memory_, tokens, source.tokens.size(), shape.data(), shape.size()),
            Ort::Value::CreateTensor(memory_, mask, source.mask.size(), shape.data(), shape.size())};
        const std::array<const char*, 2> names = {"source", "mask"};
        auto produced = encode_.Run(run_, names.data(), fed.data(), fed.size(), encode_outputs_.data(),
                                    encode_outputs_.size());
        auto state = fresh(source.rows);
        auto next = produced.begin();
        for (const StateTensor& spec : specs_) {
            state->fed.push_back(spec.initial ? initial(spec, source.rows) : std::move(*next++));
        }
        return state;
    }

    Matrix stepped(const std::vector<int64_t>& tokens, int64_t position, OnnxState& state) {
        std::copy(tokens.begin(), tokens.end(), state.tokens.begin());
        state.position = position;
        produced_.clear();
        for (size_t i = 0; i < step_outputs_.size(); ++i) produced_.emplace_back(nullptr);
        step_.Run(run_, step_inputs_.data(), state.fed.data(), state.fed.size(), step_outputs_.data(),
                  produced_.data(), produced_.size());
        for (size_t i = 0; i < changing_.size(); ++i) state.fed[changing_[i]] = std::move(produced_[i + 1]);
        const Shape shape = shape_of(produced_.front());
        if (shape.size() != 2) throw Refusal("the step's logits are no matrix: export the bundle again");
        return {produced_.front().GetTensorData<float>(), static_cast<size_t>(shape[0]),
                static_cast<size_t>(shape[1])};
    }

    /// A state tensor before the first token.
    Ort::Value initial(const StateTensor& spec, size_t rows) {
        Shape shape = spec.shape;
        shape[*spec.batch_axis] = static_cast<int64_t>(rows);
        if (std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size < 0; })) {
            throw Refusal("the manifest does not say how large " + spec.name + " is: export the bundle again");
        }
        auto value = Ort::Value::CreateTensor<float>(allocator_, shape.data(), shape.size());
        std::fill_n(value.GetTensorMutableData<float>(), elements(shape), static_cast<float>(*spec.initial));
        return value;
    }

    Ort::Value taken(const Ort::Value& value, const StateTensor& spec, const std::vector<size_t>& rows) {
        Shape shape = shape_of(value);
        const auto axis = static_cast<size_t>(*spec.batch_axis);
        const auto before = static_cast<size_t>(shape[axis]);
        const size_t outer = elements({shape.begin(), shape.begin() + axis});
        const size_t inner = elements({shape.begin() + axis + 1, shape.end()});
        shape[axis] = static_cast<int64_t>(rows.size());
        auto result = Ort::Value::CreateTensor<float>(allocator_, shape.data(), shape.size());
        const float* from = value.GetTensorData<float>();
        float* to = result.GetTensorMutableData<float>();
        for (size_t block = 0; block < outer; ++block) {
            for (const size_t row : rows) to = std::copy_n(from + (block * before + row) * inner, inner, to);
        }
        return result;
    }

    static Shape shape_of(const Ort::Value& value) { return value.GetTensorTypeAndShapeInfo().GetShape(); }

    Ort::Env env_;
    std::vector<StateTensor> specs_;
    Ort::Session encode_;
    Ort::Session step_;
    Ort::RunOptions run_;
    Ort::AllocatorWithDefaultOptions allocator_;
    Ort::MemoryInfo memory_ = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<const char*> encode_outputs_;
    std::vector<const char*> step_inputs_ = {"tokens", "position"};
    std::vector<const char*> step_outputs_ = {"logits"};
    std::vector<size_t> changing_;  // where among the fed values a step's outputs belong
    std::vector<Ort::Value> produced_;
};

}  // namespace

std::unique_ptr<Session> onnx_session(const std::string& folder, const FormatEntry& entry, int threads) {
    return std::make_unique<OnnxSession>(folder, entry, threads);
}

std::string onnx_runtime() { return std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString(); }

}  // namespace lite
