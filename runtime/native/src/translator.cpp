#include "translator.h"

#include <algorithm>
#include <cmath>

#include "refusal.h"
#include "unicode.h"

namespace lite {
namespace {

SearchOptions options_of(const Manifest& manifest, const Translate& task) {
    const Decoding& usual = manifest.decoding;
    const int64_t most = manifest.max_target - 1, length = std::min(task.max_length.value_or(most), most);
    if (length < 1 || task.min_length > length) {
        throw Refusal("lengths " + std::to_string(task.min_length) + " to " + std::to_string(length) +
                      " are asked for: min_length must be no more than max_length, nor than the bundle takes");
    }
    SearchOptions options;
    options.beam = static_cast<size_t>(task.beam.value_or(usual.beam));
    options.length_penalty = task.length_penalty.value_or(usual.length_penalty);
    options.min_length = static_cast<size_t>(task.min_length);
    options.max_length = static_cast<size_t>(length);
    options.no_repeat_ngram = static_cast<size_t>(task.no_repeat_ngram.value_or(usual.no_repeat_ngram));
    return options;
}

bool has_words(std::u32string_view text) {
    return std::any_of(text.begin(), text.end(), [](char32_t one) { return is(Kind::alphanumeric, one); });
}

}  // namespace

Translator::Translator(const Manifest& manifest, const Translate& task)
    : manifest_(manifest),
      tokenizer_(manifest),
      options_(options_of(manifest, task)),
      one_length_(task.max_length.has_value()) {}

TranslatedText Translator::translate(Session& session, const std::string& text) const {
    TranslatedText result{"", 0, {}};
    size_t translated = 0;
    for (const Segment& segment : segments(text)) {
        if (!segment.text.empty()) {
            TranslatedSentence sentence = translate(session, segment.text);
            result.text += sentence.text;
            result.score += sentence.hypothesis.score;
            translated += sentence.source_tokens.empty() ? 0 : 1;
            result.sentences.push_back(std::move(sentence));
        }
        result.text += utf8_of(segment.after);
    }
    if (translated > 0) result.score /= static_cast<double>(translated);
    return result;
}

std::vector<Segment> Translator::segments(const std::string& text) const {
    const auto count = [this](std::u32string_view part) { return tokenizer_.encode(part).ids.size(); };
    std::vector<Segment> result;
    for (const Segment& sentence : split_sentences(without_controls(characters_of(text)))) {
        for (Segment& part : split_long(sentence, static_cast<size_t>(manifest_.max_source), count)) {
            result.push_back(std::move(part));
        }
    }
    return result;
}

TranslatedSentence Translator::translate(Session& session, std::u32string_view sentence) const {
    const std::string source = utf8_of(sentence);
    if (!has_words(sentence)) return {source, {}, source, {{}, 0}};
    const Encoded encoded = tokenizer_.encode(sentence);
    SearchOptions options = options_;
    if (!one_length_) options.max_length = longest(encoded.ids.size());
    manifest_.check_limits(encoded.ids, static_cast<int64_t>(options.max_length) + 1);
    Hypothesis best = lite::translate(session, manifest_.tokens, options, encoded.ids);
    std::string text = tokenizer_.decode(best.tokens, encoded);
    return {source, encoded.ids, std::move(text), std::move(best)};
}

size_t Translator::longest(size_t source_tokens) const {
    const Decoding& usual = manifest_.decoding;
    const double wanted = std::trunc(usual.max_length_ratio * static_cast<double>(source_tokens)) +
                          static_cast<double>(usual.max_length_extra);
    const auto least = static_cast<double>(std::max<size_t>(1, options_.min_length));
    return static_cast<size_t>(std::max(least, std::min(wanted, static_cast<double>(options_.max_length))));
}

}  // namespace lite
