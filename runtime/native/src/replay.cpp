#include "replay.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "refusal.h"
#include "safetensors.h"

namespace lite {
namespace {

/// Names of the state, layer by layer; those of no layer last.
std::vector<std::string> ordered(std::vector<StateTensor> specs) {
    const auto layer = [](const StateTensor& spec) {
        return spec.layer.value_or(std::numeric_limits<int64_t>::max());
    };
    std::stable_sort(specs.begin(), specs.end(), [&](const auto& a, const auto& b) { return layer(a) < layer(b); });
    std::vector<std::string> names;
    for (const StateTensor& spec : specs) names.push_back(spec.name);
    return names;
}

double largest_difference(const Shape& shape, const float* found, const Tensor& wanted) {
    if (shape != wanted.shape) return std::numeric_limits<double>::infinity();
    double largest = 0;
    for (size_t i = 0; i < wanted.values.size(); ++i) {
        const double difference = std::fabs(static_cast<double>(found[i]) - static_cast<double>(wanted.values[i]));
        if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
        largest = std::max(largest, difference);
    }
    return largest;
}

class Comparison {
public:
    Comparison(Session& session, const Safetensors& golden, const std::vector<StateTensor>& specs)
        : session_(session), golden_(golden), names_(ordered(specs)) {}

    /// Compare a state with what was recorded after a step; what a step did not change was recorded before.
    void states(int64_t step, const State& state) {
        std::map<std::string, Tensor> found;
        for (Tensor& tensor : session_.canonical(state)) found.emplace(tensor.name, std::move(tensor));
        for (const std::string& name : names_) {
            const std::string key = std::to_string(step) + "/state/" + name;
            if (golden_.has(key)) recorded_[name] = golden_.floats(key);
            const auto tensor = found.find(name);
            if (tensor == found.end()) continue;
            if (recorded_.count(name) == 0) {
                throw Refusal("the golden steps lack " + name + ": export the bundle again");
            }
            add(step, name, tensor->second.shape, tensor->second.values.data(), recorded_[name]);
        }
    }

    void logits(int64_t step, const Matrix& logits) {
        const Shape shape = {static_cast<int64_t>(logits.rows), static_cast<int64_t>(logits.columns)};
        add(step, "logits", shape, logits.data, golden_.floats(std::to_string(step) + "/logits"));
    }

    std::vector<Difference> differences;

private:
    void add(int64_t step, const std::string& name, const Shape& shape, const float* found, const Tensor& wanted) {
        differences.push_back({step, name, largest_difference(shape, found, wanted)});
    }

    Session& session_;
    const Safetensors& golden_;
    std::vector<std::string> names_;
    std::map<std::string, Tensor> recorded_;
};

Batch script_source(const Safetensors& golden) {
    const Shape shape = golden.shape("script/source");
    if (shape.size() != 2 || golden.shape("script/mask") != shape) {
        throw Refusal("the golden steps' source and mask are of different shapes: export the bundle again");
    }
    return {static_cast<size_t>(shape[0]), static_cast<size_t>(shape[1]), golden.integers("script/source"),
            golden.truths("script/mask")};
}

}  // namespace

std::vector<Difference> replay(Session& session, const Manifest& manifest, const std::vector<StateTensor>& specs) {
    const Safetensors golden(manifest.folder + "/" + manifest.golden_steps);
    const Batch source = script_source(golden);
    const std::vector<int64_t> fed = golden.integers("script/fed");
    if (golden.shape("script/fed").size() != 2 || golden.shape("script/fed")[1] != static_cast<int64_t>(source.rows)) {
        throw Refusal("the golden steps feed another batch than they encode: export the bundle again");
    }
    Comparison comparison(session, golden, specs);
    const auto state = session.encode(source);
    comparison.states(-1, *state);
    for (size_t step = 0; step * source.rows < fed.size(); ++step) {
        const auto first = fed.begin() + static_cast<std::ptrdiff_t>(step * source.rows);
        const std::vector<int64_t> tokens(first, first + static_cast<std::ptrdiff_t>(source.rows));
        const auto position = static_cast<int64_t>(step);
        const Matrix logits = session.step(tokens, position, *state);
        comparison.states(position, *state);
        comparison.logits(position, logits);
    }
    return comparison.differences;
}

}  // namespace lite
