// Text to token ids and back, with SentencePiece: what SentencePieceTokenizer of lite_runtime/tokenizer.py does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "manifest.h"

namespace lite {

/// A sentence as the encoder reads it. `ids` end in eos. `unknowns` are the surfaces of its unknown tokens, in order;
/// the last `trailing` of them stand at its very end, with no known token after the first of them.
struct Encoded {
    std::vector<int64_t> ids;
    std::vector<std::string> unknowns;
    size_t trailing = 0;
};

class Tokenizer {
public:
    /// Throws Refusal: a file that is missing, damaged, or of another model.
    explicit Tokenizer(const Manifest& manifest);
    ~Tokenizer();

    /// Token ids of one sentence.
    Encoded encode(std::u32string_view text) const;

    /// Text of target ids, the i-th unknown token as the source's i-th. Throws Refusal for an id it does not have.
    std::string decode(const std::vector<int64_t>& ids, const Encoded& source) const;

private:
    struct Pieces;

    TextRules rules_;
    int64_t eos_;
    int64_t unk_;
    std::unique_ptr<Pieces> pieces_;
};

}  // namespace lite
