#include "sha256.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

#include "refusal.h"

namespace lite {
namespace {

constexpr size_t kBlock = 64;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<uint32_t, 64> kRounds = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotated(uint32_t word, int by) { return word >> by | word << (32 - by); }

class Digest {
public:
    void add(const unsigned char* block) {
        std::array<uint32_t, 64> words;
        for (size_t i = 0; i < 16; ++i) {
            const unsigned char* at = block + 4 * i;
            words[i] = uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
        }
        for (size_t i = 16; i < 64; ++i) {
            const uint32_t a = words[i - 15], b = words[i - 2];
            words[i] = words[i - 16] + words[i - 7] + (rotated(a, 7) ^ rotated(a, 18) ^ a >> 3) +
                       (rotated(b, 17) ^ rotated(b, 19) ^ b >> 10);
        }
        auto [a, b, c, d, e, f, g, h] = sums_;
        for (size_t i = 0; i < 64; ++i) {
            const uint32_t first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g)) +
                                   kRounds[i] + words[i];
            const uint32_t second =
                (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
        }
        const std::array<uint32_t, 8> last = {a, b, c, d, e, f, g, h};
        for (size_t i = 0; i < 8; ++i) sums_[i] += last[i];
    }

    std::string hexadecimal() const {
        std::string text;
        for (const uint32_t sum : sums_) {
            for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[sum >> shift & 15];
        }
        return text;
    }

private:
    // The same of the square roots of the first 8 primes.
    std::array<uint32_t, 8> sums_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
};

}  // namespace

std::string sha256_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<unsigned char> part(kBlock << 10);
    Digest digest;
    uint64_t total = 0;
    size_t left = 0;
    while (file) {
        file.read(reinterpret_cast<char*>(part.data()), static_cast<std::streamsize>(part.size()));
        const auto count = static_cast<size_t>(file.gcount());
        total += count;
        for (left = count; left >= kBlock; left -= kBlock) digest.add(part.data() + count - left);
        std::memmove(part.data(), part.data() + count - left, left);
    }
    if (!file.eof()) throw Refusal("cannot read " + path);
    // Closed by a one bit, zeros, and the length in bits.
    std::array<unsigned char, 2 * kBlock> last = {};
    std::memcpy(last.data(), part.data(), left);
    last[left] = 0x80;
    const size_t size = left + 9 <= kBlock ? kBlock : 2 * kBlock;
    for (size_t i = 0; i < 8; ++i) last[size - 1 - i] = static_cast<unsigned char>(total * 8 >> 8 * i);
    for (size_t at = 0; at < size; at += kBlock) digest.add(last.data() + at);
    return digest.hexadecimal();
}

}  // namespace lite
