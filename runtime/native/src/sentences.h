// A text into sentences, and long ones into parts: what lite_runtime/sentences.py does, character for character.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lite {

/// A stretch of text without white space at its ends, and the white space after it.
struct Segment {
    std::u32string text;
    std::u32string after;
};

/// The sentences of a text. Joined again they are the text exactly.
std::vector<Segment> split_sentences(std::u32string_view text);

/// A segment's parts of at most `limit` tokens, which `count` counts.
std::vector<Segment> split_long(const Segment& segment, size_t limit,
                                const std::function<size_t(std::u32string_view)>& count);

}  // namespace lite
