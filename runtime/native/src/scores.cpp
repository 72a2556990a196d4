#include "scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "refusal.h"

namespace lite {

namespace {

// As many running values as a vector register or two: compilers reorder no sum of floats by themselves.
constexpr size_t kLanes = 16;
// Scores that are passed over together.
constexpr size_t kBlock = 128;

float largest_of(const float* values, size_t count) {
    std::array<float, kLanes> lanes;
    lanes.fill(-std::numeric_limits<float>::infinity());
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) {
            lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
        }
    }
    const float largest = *std::max_element(lanes.begin(), lanes.end());
    return std::max(largest, i < count ? *std::max_element(values + i, values + count) : largest);
}

/// The exponential of what is not positive, to 3e-7 of itself. Unlike the library's, a loop over it is vectorised.
inline float exp_of(float value) {
    constexpr float kLog2E = 1.44269504F, kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;
    constexpr float kLeast = -87.0F;         // below it the result is no normal number
    constexpr float kRounder = 12582912.0F;  // 1.5 * 2^23: adding it rounds to a whole number
    value = value > kLeast ? value : kLeast;
    const float whole = (value * kLog2E + kRounder) - kRounder;
    const float x = value - whole * kLn2High - whole * kLn2Low;
    // Taylor's series: of x, at most ln(2) / 2, the first term left out is 1e-7.
    const float series = 1 + x * (1 + x * (0.5F + x * (1.0F / 6 + x * (1.0F / 24 + x * (1.0F / 120 + x / 720)))));
    const int32_t bits = (static_cast<int32_t>(whole) + 127) * (1 << 23);
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return series * power;
}

float sum_of(const float* values, size_t count) {
    std::array<float, kLanes> lanes = {};
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
    }
    return std::accumulate(values + i, values + count, std::accumulate(lanes.begin(), lanes.end(), 0.0F));
}

bool all_finite(const float* values, size_t count) {
    unsigned found = 0;
    for (size_t i = 0; i < count; ++i) found |= !(std::fabs(values[i]) <= std::numeric_limits<float>::max());
    return found == 0;
}

}  // namespace

void log_softmax(const Matrix& logits, int64_t position, std::vector<float>& scores) {
    scores.resize(logits.rows * logits.columns);
    for (size_t row = 0; row < logits.rows; ++row) {
        const float* from = logits.data + row * logits.columns;
        float* to = scores.data() + row * logits.columns;
        if (!all_finite(from, logits.columns)) {
            throw Refusal("the model returned logits that are not finite at position " + std::to_string(position) +
                          ": is it damaged?");
        }
        const float largest = largest_of(from, logits.columns);
        for (size_t i = 0; i < logits.columns; ++i) to[i] = exp_of(from[i] - largest);
        const float shift = std::log(sum_of(to, logits.columns));
        for (size_t i = 0; i < logits.columns; ++i) to[i] = from[i] - largest - shift;
    }
}

std::vector<Candidate> best_of(const std::vector<float>& scores, const std::vector<float>& totals, size_t most) {
    const size_t vocabulary = scores.size() / totals.size();
    most = std::min(most, scores.size());
    std::vector<Candidate> best;
    const auto good = [&](float total) { return best.size() < most || total > best.back().total; };
    for (size_t beam = 0; beam < totals.size(); ++beam) {
        const float* row = scores.data() + beam * vocabulary;
        for (size_t start = 0; start < vocabulary; start += kBlock) {
            const size_t end = std::min(start + kBlock, vocabulary);
            // Nearly all blocks have nothing good enough, which their largest score tells at once.
            if (!good(totals[beam] + largest_of(row + start, end - start))) continue;
            for (size_t token = start; token < end; ++token) {
                const float total = totals[beam] + row[token];
                if (!good(total)) continue;
                if (best.size() == most) best.pop_back();
                const auto better = [](float value, const Candidate& other) { return value > other.total; };
                const auto place = std::upper_bound(best.begin(), best.end(), total, better);
                best.insert(place, {beam, static_cast<int64_t>(token), total});
            }
        }
    }
    return best;
}

}  // namespace lite
