#include "tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "files.h"
#include "refusal.h"
#include "unicode.h"

namespace lite {

struct Tokenizer::Pieces {
    std::string path;
    sentencepiece::SentencePieceProcessor processor;

    void check(const sentencepiece::util::Status& status) const {
        if (!status.ok()) throw Refusal("SentencePiece cannot use " + path + ": " + status.ToString());
    }
};

namespace {

const std::string kSpace = "\u2581";

void replace_all(std::string& text, const std::string& old, const std::string& by) {
    for (size_t place = 0; (place = text.find(old, place)) != std::string::npos; place += by.size()) {
        text.replace(place, old.size(), by);
    }
}

void check_id(const std::string& path, const std::string& name, int64_t theirs, int64_t ours) {
    if (theirs != ours) {
        throw Refusal(path + " has " + name + " " + std::to_string(theirs) + ", the model " + std::to_string(ours) +
                      ": it belongs to another model");
    }
}

/// One space where there were several, none at the ends.
std::string tidied(const std::string& text) {
    std::string result;
    for (const char one : text) {
        if (one != ' ' || result.empty() || result.back() != ' ') result.push_back(one);
    }
    return utf8_of(stripped(characters_of(result)));
}

}  // namespace

Tokenizer::Tokenizer(const Manifest& manifest)
    : rules_(manifest.text), eos_(manifest.tokens.eos), unk_(manifest.tokens.unk), pieces_(new Pieces) {
    check_files(manifest, {manifest.listed(rules_.tokenizer)});
    pieces_->path = manifest.folder + "/" + rules_.tokenizer;
    auto& processor = pieces_->processor;
    pieces_->check(processor.LoadFromSerializedProto(read_file(pieces_->path)));
    check_id(pieces_->path, "pad", processor.pad_id(), manifest.tokens.pad);
    check_id(pieces_->path, "eos", processor.eos_id(), eos_);
    check_id(pieces_->path, "unk", processor.unk_id(), unk_);
    if (processor.GetPieceSize() > manifest.vocabulary) {
        throw Refusal(pieces_->path + " has " + std::to_string(processor.GetPieceSize()) + " tokens, the model " +
                      std::to_string(manifest.vocabulary) + ": it belongs to another model");
    }
}

Tokenizer::~Tokenizer() = default;

Encoded Tokenizer::encode(std::u32string_view text) const {
    std::string replaced = utf8_of(text);
    for (const auto& [old, by] : rules_.replacements) replace_all(replaced, old, by);
    std::vector<std::string> pieces;
    pieces_->check(pieces_->processor.Encode(utf8_of(without_controls(characters_of(replaced))), &pieces));
    Encoded encoded;
    for (const std::string& piece : pieces) {
        encoded.ids.push_back(pieces_->processor.PieceToId(piece));
        // An unknown piece is spelt as its own surface.
        if (encoded.ids.back() == unk_) encoded.unknowns.push_back(piece);
    }
    for (size_t i = pieces.size(); i-- > 0;) {
        if (encoded.ids[i] == unk_) {
            ++encoded.trailing;
        } else if (pieces[i] != kSpace) {
            break;
        }
    }
    encoded.ids.push_back(eos_);
    return encoded;
}

std::string Tokenizer::decode(const std::vector<int64_t>& ids, const Encoded& source) const {
    const auto& processor = pieces_->processor;
    const std::vector<std::string>& unknowns = source.unknowns;
    std::vector<std::string> pieces;
    size_t used = 0;
    for (const int64_t id : ids) {
        if (id >= processor.GetPieceSize()) {
            throw Refusal(pieces_->path + " has no token " + std::to_string(id) + ": it belongs to another model");
        }
        if (id == unk_) {
            if (used < unknowns.size()) pieces.push_back(unknowns[used]);
            ++used;
        } else if (!processor.IsControl(static_cast<int>(id))) {
            pieces.push_back(processor.IdToPiece(static_cast<int>(id)));
        }
    }
    std::string text;
    pieces_->check(processor.Decode(pieces, &text));
    // The emoji that ends a sentence is kept even where the model dropped it.
    for (size_t i = std::max(used, unknowns.size() - source.trailing); i < unknowns.size(); ++i) {
        text += " " + unknowns[i];
    }
    return tidied(text);
}

}  // namespace lite
