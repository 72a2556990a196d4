// Characters: their kinds, as Python has them, and UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lite {

/// cmake/unicode_kinds.py says what each means.
enum class Kind : uint8_t { space = 1, alphanumeric = 2, letter = 4, digit = 8, lower = 16, capital = 32 };

bool is(Kind kind, char32_t character);

/// Whether it is one of them.
bool one_of(std::u32string_view characters, char32_t character);

/// Throws Refusal where it is no UTF-8.
std::u32string characters_of(std::string_view utf8);

std::string utf8_of(std::u32string_view characters);

/// Without white space at its ends.
std::u32string_view stripped(std::u32string_view text);

/// Without control characters, NUL among them; white space stays.
std::u32string without_controls(std::u32string_view text);

}  // namespace lite
