#include "answer.h"

#include <nlohmann/json.hpp>

#include "request.h"

namespace lite {
namespace {

using nlohmann::json;

json of(const Hypothesis& one) { return {{"tokens", one.tokens}, {"score", one.score}}; }

json of(const TranslatedSentence& one) {
    return {{"source", one.source},
            {"source_tokens", one.source_tokens},
            {"text", one.text},
            {"tokens", one.hypothesis.tokens},
            {"score", one.hypothesis.score}};
}

json of(const TranslatedText& one);

json of(const Difference& one) { return {{"step", one.step}, {"tensor", one.tensor}, {"largest", one.largest}}; }

json of(const Timing& one) { return {{"encode", one.encode}, {"steps", one.steps}, {"sentence", one.sentence}}; }

template <typename Part>
json list_of(const std::vector<Part>& parts) {
    json list = json::array();
    for (const Part& part : parts) list.push_back(of(part));
    return list;
}

json of(const TranslatedText& one) {
    return {{"text", one.text}, {"score", one.score}, {"sentences", list_of(one.sentences)}};
}

json of(const Decoded& result) { return {{"kind", "decode"}, {"hypotheses", list_of(result.hypotheses)}}; }

json of(const Translated& result) { return {{"kind", "translate"}, {"texts", list_of(result.texts)}}; }

json of(const Replayed& result) { return {{"kind", "replay"}, {"differences", list_of(result.differences)}}; }

json of(const Measured& result) {
    return {{"kind", "measure"}, {"load", result.load}, {"timings", list_of(result.timings)}};
}

}  // namespace

std::string json_of(const Answer& answer) {
    const json content = {{"version", kProtocolVersion},
                          {"runtime", answer.runtime},
                          {"abi", answer.abi},
                          {"peak_rss", answer.peak_rss},
                          {"result", std::visit([](const auto& result) { return of(result); }, answer.result)}};
    return content.dump() + "\n";
}

}  // namespace lite
