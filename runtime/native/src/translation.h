// What a translated text is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "search.h"

namespace lite {

/// A sentence and its translation; one without a letter or digit is its own, without tokens.
struct TranslatedSentence {
    std::string source;
    std::vector<int64_t> source_tokens;
    std::string text;
    Hypothesis hypothesis;
};

/// A whole text. The score is the mean of its sentences', 0 where the model had nothing to do.
struct TranslatedText {
    std::string text;
    double score;
    std::vector<TranslatedSentence> sentences;
};

}  // namespace lite
