#include "request.h"

#include <optional>

#include "fields.h"
#include "refusal.h"

namespace lite {
namespace {

int64_t at_least(int64_t least, Fields& fields, const std::string& key, std::optional<int64_t> fallback = {}) {
    const int64_t value = fallback && !fields.has(key) ? *fallback : fields.integer(key);
    if (value < least || value > INT32_MAX) fields.refuse(key, "is out of range: " + std::to_string(value));
    return value;
}

Sentence read_sentence(Fields fields) {
    Sentence sentence{fields.integers("source"), at_least(1, fields, "max_length")};
    if (sentence.source.empty()) fields.refuse("source", "is empty: a sentence has at least its eos");
    fields.no_others();
    return sentence;
}

Decode read_decode(Fields& fields) {
    Decode decode;
    for (Fields& sentence : fields.objects("sentences")) decode.sentences.push_back(read_sentence(sentence));
    decode.beam = at_least(1, fields, "beam", 1);
    decode.length_penalty = fields.has("length_penalty") ? fields.number("length_penalty") : 1.0;
    decode.no_repeat_ngram = at_least(0, fields, "no_repeat_ngram", 0);
    return decode;
}

Translate read_translate(Fields& fields) {
    const auto maybe = [&fields](int64_t least, const std::string& key) {
        return fields.has(key) ? std::optional<int64_t>(at_least(least, fields, key)) : std::nullopt;
    };
    Translate translate;
    translate.texts = fields.texts("texts");
    translate.beam = maybe(1, "beam");
    translate.length_penalty = fields.maybe("length_penalty", &Fields::number);
    translate.no_repeat_ngram = maybe(0, "no_repeat_ngram");
    translate.max_length = maybe(1, "max_length");
    translate.min_length = at_least(0, fields, "min_length", 1);
    return translate;
}

Measure read_measure(Fields& fields) {
    Measure measure;
    measure.sources = fields.integer_lists("sources");
    for (const auto& source : measure.sources) {
        if (source.empty()) fields.refuse("sources", "holds an empty one: a sentence has at least its eos");
    }
    if (measure.sources.empty()) fields.refuse("sources", "is empty: there is nothing to time");
    measure.tokens = at_least(1, fields, "tokens");
    measure.warm_up = at_least(0, fields, "warm_up", 1);
    return measure;
}

Task read_task(Fields fields) {
    const std::string kind = fields.text("kind");
    Task task = Replay{};
    if (kind == "decode") {
        task = read_decode(fields);
    } else if (kind == "translate") {
        task = read_translate(fields);
    } else if (kind == "measure") {
        task = read_measure(fields);
    } else if (kind != "replay") {
        fields.refuse("kind", "is " + kind + "; there are: decode, translate, replay, measure");
    }
    fields.no_others();
    return task;
}

}  // namespace

Request read_request(const std::string& path) {
    const Document document = Document::read(path);
    Fields fields = document.fields();
    if (const int64_t version = fields.has("version") ? fields.integer("version") : kProtocolVersion;
        version != kProtocolVersion) {
        fields.refuse("version", "is " + std::to_string(version) + ", this runner speaks " +
                                     std::to_string(kProtocolVersion) + ": build the runner again");
    }
    Request request{fields.text("bundle"), fields.text("format"), fields.text("precision"),
                    fields.has("cache") ? fields.text("cache") : "explicit",
                    static_cast<int>(at_least(1, fields, "threads", 1)), read_task(fields.object("task"))};
    fields.no_others();
    return request;
}

}  // namespace lite
