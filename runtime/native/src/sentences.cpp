#include "sentences.h"

#include <algorithm>
#include <set>

#include "unicode.h"

namespace lite {
namespace {

using View = std::u32string_view;
using Count = std::function<size_t(View)>;

const std::set<View> kTitles = {
    U"mr",   U"mrs", U"ms",  U"dr",  U"prof", U"rev",  U"hon",    U"st",  U"mt",   U"gen", U"col",
    U"maj",  U"capt", U"lt", U"sgt", U"sen",  U"rep",  U"gov",    U"pres", U"supt", U"messrs", U"mme",
    U"mlle", U"vs",  U"cf",  U"viz", U"ca",   U"approx", U"esp",  U"dept", U"est"};
const std::set<View> kNumbered = {U"no",  U"nos", U"p",  U"pp",  U"vol", U"fig", U"figs",
                                  U"art", U"sec", U"ch", U"par", U"op",  U"eq"};
const std::set<View> kTimes = {U"a.m", U"p.m"};
constexpr View kOpeners = U"\"'“‘«‹([{¿¡-–—*", kClosers = U"\"'”’»›)]}*";
constexpr View kEnds = U".!?…", kGoesOn = U".!?…,;:", kClause = U",;:)—–";
constexpr View kBreaks = U"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029";

template <typename Predicate>
bool all(View text, const Predicate& holds) {
    return !text.empty() && std::all_of(text.begin(), text.end(), holds);
}

template <typename Predicate>
size_t run(View text, size_t start, const Predicate& holds) {
    return std::find_if_not(text.begin() + start, text.end(), holds) - text.begin();
}

bool space(char32_t one) { return is(Kind::space, one); }
bool no_space(char32_t one) { return !space(one); }

View without_last(View text, View characters) {
    while (!text.empty() && one_of(characters, text.back())) text.remove_suffix(1);
    return text;
}

View without_first(View text, View characters) {
    while (!text.empty() && one_of(characters, text.front())) text.remove_prefix(1);
    return text;
}

/// Of letters outside ASCII none becomes a letter of an abbreviation.
std::u32string lowered(View text) {
    std::u32string result(text);
    for (char32_t& one : result) one += one >= U'A' && one <= U'Z' ? U'a' - U'A' : 0;
    return result;
}

/// Letters with a dot between each and the next: "U.S".
bool acronym(View stem) {
    if (stem.size() < 3 || stem.size() % 2 == 0) return false;
    for (size_t i = 0; i < stem.size(); ++i) {
        if (i % 2 == 0 ? !is(Kind::letter, stem[i]) : stem[i] != U'.') return false;
    }
    return true;
}

/// Whether a single full stop after the word `stem` ends the sentence; `following` is what comes next.
bool ends_at_dot(View stem, View following, bool first) {
    const std::u32string word = lowered(stem);
    const auto digit = [](char32_t one) { return is(Kind::digit, one); };
    // "1. Open the box."
    if (first && (stem.size() == 1 || all(stem, digit))) return false;
    if (kNumbered.count(word) != 0) return following.empty() || !digit(following.front());
    if (kTitles.count(word) != 0) return false;
    // "J. Smith"
    if (stem.size() == 1 && is(Kind::capital, stem.front())) return false;
    return kTimes.count(word) != 0 || !acronym(stem);
}

bool is_boundary(View word, View gap, View following, bool first) {
    const auto line_break = [](char32_t one) { return one_of(kBreaks, one); };
    if (word.empty() || following.empty() || std::any_of(gap.begin(), gap.end(), line_break)) return !gap.empty();
    const View bare = without_last(word, kClosers);
    const View stem = without_last(bare, kEnds);
    const View ending = bare.substr(stem.size());
    const View start = without_first(following, kOpeners);
    if (ending.empty()) return false;
    if (!start.empty() && (is(Kind::lower, start.front()) || one_of(kGoesOn, start.front()))) return false;
    return ending != U"." || ends_at_dot(without_first(stem, kOpeners), start, first);
}

/// Length of a long prefix of at most `limit` tokens: found by doubling, then by halving the doubt.
size_t fitting(View text, size_t limit, const Count& count) {
    size_t low = 1, high = std::min(std::max<size_t>(limit, 1), text.size());
    while (high < text.size() && count(text.substr(0, high)) <= limit) {
        low = high;
        high = std::min(2 * high, text.size());
    }
    if (count(text.substr(0, high)) <= limit) return high;
    while (high > low + 1) {
        const size_t middle = (low + high) / 2;
        (count(text.substr(0, middle)) <= limit ? low : high) = middle;
    }
    return low;
}

/// The best place to cut within the first `fits` characters: after a clause, else at a space, else anywhere.
size_t cut(View text, size_t fits) {
    size_t clause = 0, gap = 0;
    for (size_t place = 1; place <= fits; ++place) {
        if (!space(text[place]) || space(text[place - 1])) continue;
        gap = place;
        // A clause that ends in the first half would leave a part too short to translate well.
        if (place > fits / 2 && one_of(kClause, text[place - 1])) clause = place;
    }
    return clause != 0 ? clause : gap != 0 ? gap : fits;
}

}  // namespace

std::vector<Segment> split_sentences(View text) {
    std::vector<Segment> segments;
    std::u32string current;
    bool first = true;
    for (size_t start = 0; start < text.size();) {
        const size_t end = run(text, start, no_space), next = run(text, end, space);
        const View word = text.substr(start, end - start), gap = text.substr(end, next - end);
        const View following = text.substr(next, run(text, next, no_space) - next);
        current += word;
        if (is_boundary(word, gap, following, first)) {
            segments.push_back({current, std::u32string(gap)});
            current.clear();
            first = true;
        } else {
            current += gap;
            first = false;
        }
        start = next;
    }
    if (!current.empty()) segments.push_back({current, {}});
    return segments;
}

std::vector<Segment> split_long(const Segment& segment, size_t limit, const Count& count) {
    std::vector<Segment> parts;
    View text = segment.text;
    for (size_t fits; text.size() > (fits = fitting(text, limit, count));) {
        const size_t place = cut(text, fits), rest = run(text, place, space);
        parts.push_back({std::u32string(text.substr(0, place)), std::u32string(text.substr(place, rest - place))});
        text.remove_prefix(rest);
    }
    parts.push_back({std::u32string(text), segment.after});
    return parts;
}

}  // namespace lite
