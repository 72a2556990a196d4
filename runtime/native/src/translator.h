// Text in, text out: what lite_runtime/translator.py does, a sentence at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "manifest.h"
#include "request.h"
#include "search.h"
#include "sentences.h"
#include "session.h"
#include "tokenizer.h"
#include "translation.h"

namespace lite {

class Translator {
public:
    /// Throws Refusal: a tokenizer that cannot be used, options that contradict each other or the model's limits.
    Translator(const Manifest& manifest, const Translate& task);

    /// White space and line breaks between the sentences stay as they are.
    TranslatedText translate(Session& session, const std::string& text) const;

private:
    std::vector<Segment> segments(const std::string& text) const;
    TranslatedSentence translate(Session& session, std::u32string_view sentence) const;
    size_t longest(size_t source_tokens) const;

    const Manifest& manifest_;
    Tokenizer tokenizer_;
    SearchOptions options_;
    bool one_length_;
};

}  // namespace lite
