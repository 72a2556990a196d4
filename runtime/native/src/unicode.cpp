#include "unicode.h"

#include <algorithm>
#include <iterator>

#include "refusal.h"

namespace lite {
namespace {

struct Range {
    char32_t first;
    uint8_t kinds;
};

constexpr Range kRanges[] = {
#include "unicode_kinds.inc"
};

constexpr char32_t kSurrogates = 0xD800, kAfterSurrogates = 0xE000, kEnd = 0x110000;

/// Of a character's first byte: how many follow.
int following(unsigned char first) {
    if (first < 0x80) return 0;
    if (first >= 0xC2 && first < 0xE0) return 1;
    if (first >= 0xE0 && first < 0xF0) return 2;
    if (first >= 0xF0 && first < 0xF5) return 3;
    throw Refusal("a text is no UTF-8: write it as UTF-8");
}

bool valid(char32_t character, int followers) {
    // The least of each length: longer spellings are forbidden.
    constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
    return character >= kLeast[followers] && character < kEnd &&
           (character < kSurrogates || character >= kAfterSurrogates);
}

bool control(char32_t character) { return character < 0x20 || (character >= 0x7F && character < 0xA0); }

}  // namespace

bool is(Kind kind, char32_t character) {
    const auto before = [](char32_t value, const Range& range) { return value < range.first; };
    const Range* range = std::upper_bound(std::begin(kRanges), std::end(kRanges), character, before) - 1;
    return (range->kinds & static_cast<uint8_t>(kind)) != 0;
}

bool one_of(std::u32string_view characters, char32_t character) {
    return characters.find(character) != std::u32string_view::npos;
}

std::u32string characters_of(std::string_view utf8) {
    std::u32string result;
    for (size_t i = 0; i < utf8.size();) {
        const auto first = static_cast<unsigned char>(utf8[i++]);
        const int followers = following(first);
        char32_t character = followers == 0 ? first : first & (0x3F >> followers);
        for (int left = followers; left > 0; --left, ++i) {
            if (i == utf8.size() || (utf8[i] & 0xC0) != 0x80) throw Refusal("a text is no UTF-8: write it as UTF-8");
            character = character << 6 | (utf8[i] & 0x3F);
        }
        if (!valid(character, followers)) throw Refusal("a text is no UTF-8: write it as UTF-8");
        result.push_back(character);
    }
    return result;
}

std::string utf8_of(std::u32string_view characters) {
    std::string result;
    for (const char32_t character : characters) {
        const int followers = (character >= 0x80) + (character >= 0x800) + (character >= 0x10000);
        constexpr unsigned char kMarks[] = {0, 0xC0, 0xE0, 0xF0};
        result.push_back(static_cast<char>(kMarks[followers] | character >> 6 * followers));
        for (int left = followers - 1; left >= 0; --left) {
            result.push_back(static_cast<char>(0x80 | (character >> 6 * left & 0x3F)));
        }
    }
    return result;
}

std::u32string_view stripped(std::u32string_view text) {
    while (!text.empty() && is(Kind::space, text.front())) text.remove_prefix(1);
    while (!text.empty() && is(Kind::space, text.back())) text.remove_suffix(1);
    return text;
}

std::u32string without_controls(std::u32string_view text) {
    std::u32string result;
    const auto stays = [](char32_t one) { return !control(one) || is(Kind::space, one); };
    std::copy_if(text.begin(), text.end(), std::back_inserter(result), stays);
    return result;
}

}  // namespace lite
