// Intel's tile instructions (AMX) in plain C++, slow and exact: so that a machine without them tests the kernels that use them.
// Included before kernels.cpp by the tests (test_kernels.py).
#pragma once
#if !defined(__AMX_BF16__)
#define __AMX_BF16__ 1
#define EMULATED_TILES 1

#include <cstdint>
#include <cstring>

namespace emulated {
struct Config {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};
thread_local Config config;
thread_local unsigned char data[8][16][64];
inline float widened(uint16_t x) {
    uint32_t word = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}
}  // namespace emulated

inline void _tile_loadconfig(const void* from) {
    std::memcpy(&emulated::config, from, 64);
    std::memset(emulated::data, 0, sizeof emulated::data);
}
inline void _tile_storeconfig(void* to) { std::memcpy(to, &emulated::config, 64); }
inline void _tile_zero(int tile) { std::memset(emulated::data[tile], 0, sizeof emulated::data[tile]); }
inline void _tile_loadd(int tile, const void* from, int64_t stride) {
    for (int row = 0; row < emulated::config.rows[tile]; row++)
        std::memcpy(emulated::data[tile][row], static_cast<const char*>(from) + row * stride, emulated::config.bytes[tile]);
}
inline void _tile_stored(int tile, void* to, int64_t stride) {
    for (int row = 0; row < emulated::config.rows[tile]; row++)
        std::memcpy(static_cast<char*>(to) + row * stride, emulated::data[tile][row], emulated::config.bytes[tile]);
}
inline void _tile_dpbf16ps(int sums, int left, int right) {
    for (int row = 0; row < emulated::config.rows[left]; row++)
        for (int pair = 0; pair < emulated::config.bytes[left] / 4; pair++) {
            uint16_t a[2], b[2];
            std::memcpy(a, emulated::data[left][row] + 4 * pair, 4);
            for (int column = 0; column < emulated::config.bytes[sums] / 4; column++) {
                float sum;
                std::memcpy(&sum, emulated::data[sums][row] + 4 * column, 4);
                std::memcpy(b, emulated::data[right][pair] + 4 * column, 4);
                sum += emulated::widened(a[0]) * emulated::widened(b[0]) + emulated::widened(a[1]) * emulated::widened(b[1]);
                std::memcpy(emulated::data[sums][row] + 4 * column, &sum, 4);
            }
        }
}
#endif
