/* Attention over a tree of pages, and the whole forward pass of Llama-like models, for one or more
   CPU cores.

   glore.engines.local.native.build compiles this at first use with the machine's own C compiler
   (GCC or Clang vector extensions, no other dependency). Without a compiler, torch does the same
   work (glore.engines.local.attention). Everything is float32, except products in bfloat16, int16
   or int8: see `enum`.

   Words. A *page* holds the keys and values of up to PAGE consecutive tokens of one layer: keys
   [H, D, PAGE] (a vector of tokens per channel), values [H, PAGE, D]. A *query* is one token that
   is being computed: it writes its own key and value to one page and attends to the pages of its
   chain (every token of a prompt is stored once, for all that continue it). A page that a
   completion fills token by token has its keys laid out as its values, [H, PAGE, D]: in the other
   layout, writing a token touches D lines of memory. Neighbouring queries go through the pages that
   they share together, even where their chains fork, so that each key and value is loaded once for
   up to BLOCK of them. D is padded to a multiple of PAGE with zeros. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define VL 16
#define MR 12
#elif defined(__AVX2__) && defined(__FMA__)
#define VL 8
#define MR 6
#else
#define VL 4
#define MR 8
#endif
#define NR (2 * VL) /* columns of a weight panel */
#define PAGE 16     /* tokens of a page */
#define PV (PAGE / VL)
/* queries, times query heads of a key head, that go through a page together */
#define BLOCK 24
/* rows that go through a matrix together, so that its weights are fetched once for them */
#define CHUNK 256
#define MAX_THREADS 64
#define LINE 16 /* floats of a line of the cache */

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) (*(const vec *)(p))
#define STORE(p, v) (*(vec *)(p) = (v))

/* What a model's products are computed in. BF16: weights and inputs in bfloat16, two to a word,
   sums in float32. INT16 and INT8: weights and inputs in integers, two or four to a word, with a
   scale for each output and each row, sums in int32, which can't overflow; keys and values are then
   kept in float16. The weights of an INT8 model are rotated (rotation.py), and the inputs of `down`
   are rotated here. */
enum { FP32, BF16, INT16, INT8 };
#define IS_INTEGER(kind) ((kind) == INT16 || (kind) == INT8)

typedef struct {
    const float *input_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *out, *out_bias, *mlp_norm,
        *gate_up, *down;
    int64_t window; /* tokens a query may look back, itself included; 0: all */
} Layer;

typedef struct {
    /* kind: of the layers' weights; head_kind: of the head's */
    int64_t n_layers, hidden, n_heads, n_kv, head_dim, inter, n_out, kind, head_kind;
    const float *embed, *final_norm, *head, *head_bias, *cosine, *sine;
    const Layer *layers;
    double eps, scale;
} Model;

typedef struct {
    /* dependent: queries of one batch read each other's keys (prompts) */
    int64_t n, n_selected, stride, dependent;
    const int32_t *tokens, *positions; /* [n] */
    /* [n]; page -1: the key and value are there already */
    const int32_t *write_page, *write_offset;
    /* [n]: row of `table`; pages of it that count; tokens of the last page that count */
    const int32_t *chain, *n_pages, *n_last;
    /* [n]: pages of it that are a prompt's; those behind them are a completion's own */
    const int32_t *n_prompt;
    const int32_t *table; /* [chains, stride] page numbers */
    /* [pages]: tokens in a page, position of its first */
    const int32_t *fill, *start;
    void **keys, **values;   /* [layers], float or float16 */
    const int32_t *selected; /* [n_selected] queries whose logits are wanted */
    float *logits;           /* [n_selected, n_out] */
} Batch;

typedef struct {
    int64_t n_heads, n_kv, head_dim, padded, window;
    float scale, softcap;
} Heads;

/* ---- elementwise ---- */

/* a * b + c, by name: left to itself, a compiler fuses the two or not by what stands beside them,
 * and sums would depend on their neighbours. */
#if defined(__AVX512F__)
#define FMA(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#elif defined(__FMA__)
#define FMA(a, b, c) ((vec)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#define FMA(a, b, c) ((vec)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE vec splat(float x) { return x - (vec){0}; }

/* e^x within 2 ulp for -87 <= x <= 88; Cephes' polynomial. */
INLINE vec vexp_inside(vec x) {
    vec half = (vec)(((ivec)x & INT32_MIN) | (ivec)splat(0.5f));
    ivec whole = __builtin_convertvector(x * 1.44269504088896341f + half, ivec);
    vec n = __builtin_convertvector(whole, vec);
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec scale = (whole + 127) << 23;
    return p * (vec)scale;
}

/* e^x for any x. */
INLINE vec vexp(vec x) {
    ivec low = x<splat(-87.0f), high = x> splat(88.0f);
    return vexp_inside((vec)(((ivec)splat(-87.0f) & low) | ((ivec)splat(88.0f) & high) |
                             ((ivec)x & ~(low | high))));
}

/* e^x for x <= 0; 0 below -87, and a NaN stays one. */
INLINE vec vexp_below(vec x) { return (vec)((ivec)vexp_inside(x) & ~(x < splat(-87.0f))); }

#if VL == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif VL == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif

/* Sums of neighbours: those of a, then those of b. */
INLINE vec pairs(vec a, vec b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, EVEN) + __builtin_shufflevector(a, b, ODD);
#else
    return __builtin_shuffle(a, b, (ivec){EVEN}) + __builtin_shuffle(a, b, (ivec){ODD});
#endif
}

/* The sum of all numbers of a vector, in one order with every compiler. */
INLINE float across(vec x) {
    for (int width = VL / 2; width >= 1; width /= 2)
        for (int l = 0; l < width; l++) x[l] += x[l + width];
    return x[0];
}

static void rms_norm(const float *x, const float *weight, float *out, int64_t n, float eps) {
    vec even = (vec){0}, odd = (vec){0};
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        vec a = LOAD(x + i), b = LOAD(x + i + VL);
        even = FMA(a, a, even);
        odd = FMA(b, b, odd);
    }
    float total = across(even + odd);
    for (; i < n; i++) total += x[i] * x[i];
    float inverse = 1.0f / sqrtf(total / (float)n + eps);
    for (i = 0; i < n; i++) out[i] = x[i] * inverse * weight[i];
}

/* ---- rotation ---- */

#define LANES 16

/* The same place, and the next `width` - 1, of n parts: less the share of their sum, times scale. */
INLINE void reflect(float *x, int64_t n, int64_t part, int64_t width, float scale) {
    float total[LANES] = {0}, share = n > 1 ? 2.0f / (float)n : 0.0f;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < width; c++) total[c] += x[i * part + c];
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < width; c++)
            x[i * part + c] = (x[i * part + c] - total[c] * share) * scale;
}

/* Rows [m, k] times the matrix of `rotated` in rotation.py, with LANES if they fit. */
static void rotate_rows(float *x, int64_t m, int64_t k) {
    int64_t lanes = k % LANES ? 1 : LANES, size = k / lanes, power = size & -size, n = size / power,
            part = power * lanes;
    float scale = 1.0f / sqrtf((float)power);
    for (; m > 0; m--, x += k) {
        for (int64_t width = lanes; width < part; width *= 2)
            for (int64_t i = 0; i < k; i += 2 * width) {
                float *restrict low = x + i, *restrict high = low + width;
                for (int64_t c = 0; c < width; c++) {
                    float a = low[c], b = high[c];
                    low[c] = a + b;
                    high[c] = a - b;
                }
            }
        if (lanes == LANES)
            for (int64_t c = 0; c < part; c += LANES) reflect(x + c, n, part, LANES, scale);
        else
            for (int64_t c = 0; c < part; c++) reflect(x + c, n, part, 1, scale);
    }
}

/* ---- matrix products: out [m, n] from rows a [m, k] and panels w [n / NR][k][NR] ---- */

enum { SET, ADD, GATED };

/* WORD: what is loaded for one row and one step of k; STEP: its product with a vector of weights,
 * added to a sum. `next`: memory that is fetched meanwhile, a line for each step of k. */
#define MICRO(NAME, R, WORD, STEP)                                                            \
    static void NAME##R(const void *rows, int64_t lda, const float *w, int64_t k, float *out, \
                        int64_t ldo, int add, const float *next) {                            \
        const WORD *a = rows;                                                                 \
        vec acc[R][2];                                                                        \
        for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = (vec){0};                         \
        for (int64_t i = 0; i < k; i++, w += NR, next += LINE) {                              \
            __builtin_prefetch(next, 0, 2);                                                   \
            vec w0 = LOAD(w), w1 = LOAD(w + VL);                                              \
            _Pragma("GCC unroll 12") for (int r = 0; r < R; r++) {                            \
                acc[r][0] = STEP(acc[r][0], a[r * lda + i], w0);                              \
                acc[r][1] = STEP(acc[r][1], a[r * lda + i], w1);                              \
            }                                                                                 \
        }                                                                                     \
        _Pragma("GCC unroll 12") for (int r = 0; r < R; r++, out += ldo) {                    \
            if (add) acc[r][0] += LOAD(out), acc[r][1] += LOAD(out + VL);                     \
            STORE(out, acc[r][0]);                                                            \
            STORE(out + VL, acc[r][1]);                                                       \
        }                                                                                     \
    }
/* M for every number of rows that a block may have. */
#if MR == 12
#define EACH(M, NAME, ...)                                                           \
    M(NAME, 1, __VA_ARGS__)                                                          \
    M(NAME, 2, __VA_ARGS__) M(NAME, 3, __VA_ARGS__) M(NAME, 4, __VA_ARGS__)          \
        M(NAME, 5, __VA_ARGS__) M(NAME, 6, __VA_ARGS__) M(NAME, 7, __VA_ARGS__)      \
            M(NAME, 8, __VA_ARGS__) M(NAME, 9, __VA_ARGS__) M(NAME, 10, __VA_ARGS__) \
                M(NAME, 11, __VA_ARGS__) M(NAME, 12, __VA_ARGS__)
#define LIST(NAME)                                                    \
    {0,       NAME##1, NAME##2, NAME##3,  NAME##4,  NAME##5, NAME##6, \
     NAME##7, NAME##8, NAME##9, NAME##10, NAME##11, NAME##12}
#elif MR == 8
#define EACH(M, NAME, ...)                                                      \
    M(NAME, 1, __VA_ARGS__)                                                     \
    M(NAME, 2, __VA_ARGS__) M(NAME, 3, __VA_ARGS__) M(NAME, 4, __VA_ARGS__)     \
        M(NAME, 5, __VA_ARGS__) M(NAME, 6, __VA_ARGS__) M(NAME, 7, __VA_ARGS__) \
            M(NAME, 8, __VA_ARGS__)
#define LIST(NAME) {0, NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6, NAME##7, NAME##8}
#else
#define EACH(M, NAME, ...)                                                  \
    M(NAME, 1, __VA_ARGS__)                                                 \
    M(NAME, 2, __VA_ARGS__) M(NAME, 3, __VA_ARGS__) M(NAME, 4, __VA_ARGS__) \
        M(NAME, 5, __VA_ARGS__) M(NAME, 6, __VA_ARGS__)
#define LIST(NAME) {0, NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6}
#endif
#define STEP_SINGLE(sum, a, w) FMA(splat(a), w, sum)
EACH(MICRO, micro_, float, STEP_SINGLE)
typedef void (*Micro)(const void *, int64_t, const float *, int64_t, float *, int64_t, int,
                      const float *);
static const Micro SINGLES[MR + 1] = LIST(micro_);

#if defined(__AVX512BF16__)
#define STEP_BF16(sum, a, w) \
    ((vec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_epi32(a), (__m512bh)(w)))
EACH(MICRO, bf16_, int32_t, STEP_BF16)
static const Micro BF16S[MR + 1] = LIST(bf16_);
#endif

#if defined(__AVX512VNNI__)
/* Rows: a scale, then words of inputs, in INT8 each 128 more than it stands for. Behind the words
   of a panel are the scales of its columns, and what these 128 add to their sums. What is fused is
   said, or it might depend on R. */
#define MICRO_WHOLE(NAME, R, DOT)                                                             \
    static void NAME##R(const void *rows, int64_t lda, const float *w, int64_t k, float *out, \
                        int64_t ldo, int add, const float *next) {                            \
        const int32_t *a = rows;                                                              \
        ivec acc[R][2];                                                                       \
        for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = (ivec){0};                        \
        for (int64_t i = 1; i <= k; i++, w += NR, next += LINE) {                             \
            __builtin_prefetch(next, 0, 2);                                                   \
            __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + VL);              \
            _Pragma("GCC unroll 12") for (int r = 0; r < R; r++) {                            \
                __m512i x = _mm512_set1_epi32(a[r * lda + i]);                                \
                acc[r][0] = (ivec)DOT((__m512i)acc[r][0], x, w0);                             \
                acc[r][1] = (ivec)DOT((__m512i)acc[r][1], x, w1);                             \
            }                                                                                 \
        }                                                                                     \
        _Pragma("GCC unroll 12") for (int r = 0; r < R; r++, out += ldo) {                    \
            float scale;                                                                      \
            memcpy(&scale, a + r * lda, sizeof scale);                                        \
            __m512 sum0 = _mm512_fmsub_ps((__m512) __builtin_convertvector(acc[r][0], vec),   \
                                          (__m512)LOAD(w), (__m512)LOAD(w + NR));             \
            __m512 sum1 = _mm512_fmsub_ps((__m512) __builtin_convertvector(acc[r][1], vec),   \
                                          (__m512)LOAD(w + VL), (__m512)LOAD(w + NR + VL));   \
            __m512 by = _mm512_set1_ps(scale);                                                \
            STORE(out, (vec)(add ? _mm512_fmadd_ps(sum0, by, (__m512)LOAD(out))               \
                                 : _mm512_mul_ps(sum0, by)));                                 \
            STORE(out + VL, (vec)(add ? _mm512_fmadd_ps(sum1, by, (__m512)LOAD(out + VL))     \
                                      : _mm512_mul_ps(sum1, by)));                            \
        }                                                                                     \
    }
EACH(MICRO_WHOLE, int16_, _mm512_dpwssd_epi32)
EACH(MICRO_WHOLE, int8_, _mm512_dpbusd_epi32)
static const Micro INT16S[MR + 1] = LIST(int16_), INT8S[MR + 1] = LIST(int8_);
#endif

INLINE uint32_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0; /* a NaN stays one */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Whether products of this kind are compiled in. */
int64_t glore_has(int64_t kind) {
#if defined(__AVX512BF16__)
    if (kind == BF16) return 1;
#endif
#if defined(__AVX512VNNI__)
    if (IS_INTEGER(kind)) return 1;
#endif
    return kind == FP32;
}

/* Words of a row of k inputs, and of a column of k weights; what stands before the former and
 * behind the latter is not counted. */
INLINE int64_t words(int64_t k, int kind) {
    return kind == FP32 ? k : kind == INT8 ? (k + 3) / 4 : (k + 1) / 2;
}

/* Words behind those of a column: scale and surplus. */
INLINE int64_t behind(int kind) { return IS_INTEGER(kind) ? 2 : 0; }

/* Rows [m, k] to bfloat16, two to a word [m, (k + 1) / 2]. */
static void halve(const float *a, int64_t lda, int64_t m, int64_t k, int32_t *out) {
    for (int64_t r = 0; r < m; r++, a += lda) {
        int64_t i = 0;
#if defined(__AVX512BF16__)
        for (; i + 16 <= k; i += 16, out += 8)
            _mm256_storeu_si256((__m256i *)out,
                                (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(a + i)));
#endif
        for (; i < k; i += 2)
            *out++ = (int32_t)(to_bf16(a[i]) | (i + 1 < k ? to_bf16(a[i + 1]) << 16 : 0));
    }
}

/* The largest whole number that inputs and weights of sums of k may have, so that these fit into an
 * int32. */
INLINE float largest(int64_t k, int kind) {
    return kind == INT8 ? 127.0f : floorf(fminf(sqrtf(2147000000.0f / (float)k), 32767.0f));
}

/* n numbers to whole ones of at most `most`, times the scale that is returned (not finite where
 * they are not): int16, or int8 plus `plus`. */
static float quantize(const float *x, int64_t n, int kind, int plus, void *out) {
    vec high = (vec){0}, broken = (vec){0};
    float top = 0, check = 0, most = largest(n, kind);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        vec y = LOAD(x + i), z = (vec)((ivec)y & INT32_MAX);
        ivec more = z > high;
        high = (vec)(((ivec)z & more) | ((ivec)high & ~more));
        broken += y * 0.0f;
    }
    for (; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top, check += x[i] * 0.0f;
    for (int l = 0; l < VL; l++) top = high[l] > top ? high[l] : top;
    float inverse = top > 0 ? most / top : 0.0f;
    i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) {
        __m512i whole =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        if (kind == INT8)
            _mm_storeu_si128((__m128i *)((uint8_t *)out + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(
                                                                  whole, _mm512_set1_epi32(plus))));
        else
            _mm256_storeu_si256((__m256i *)((int16_t *)out + i), _mm512_cvtepi32_epi16(whole));
    }
#endif
    for (; i < n; i++) {
        int16_t whole = (int16_t)lrintf(x[i] * inverse);
        if (kind == INT8)
            ((uint8_t *)out)[i] = (uint8_t)(whole + plus);
        else
            memcpy((uint8_t *)out + 2 * i, &whole, 2);
    }
    return top / most + check + across(broken);
}

#if defined(__AVX512VNNI__)
/* Rows [m, k] to whole numbers, a scale before each row: [m, 1 + words(k)]. */
static void quantize_rows(const float *a, int64_t lda, int64_t m, int64_t k, int kind,
                          int32_t *out) {
    int64_t n = words(k, kind);
    for (int64_t r = 0; r < m; r++, a += lda, out += 1 + n) {
        out[n] = 0;
        float scale = quantize(a, k, kind, 128, out + 1);
        memcpy(out, &scale, sizeof scale);
    }
}
#endif

/* SET: out = a w + bias; ADD: out += a w + bias; GATED: panels hold VL gate and VL up columns, out
   = silu(gate) * up. `narrowed`: room for the inputs in this kind of number. */
static void product(const float *a, int64_t lda, const float *w, const float *bias, int64_t m,
                    int64_t n, int64_t k, float *out, int64_t ldo, int mode, int kind,
                    int32_t *narrowed) {
    float tile[MR * NR];
    const int32_t *rows_of = (const int32_t *)a;
    const Micro *micros = SINGLES;
    int64_t size = k * NR;
    (void)kind, (void)narrowed;
#if defined(__AVX512BF16__)
    if (kind == BF16) {
        halve(a, lda, m, k, narrowed);
        k = lda = words(k, BF16);
        size = k * NR;
        rows_of = narrowed;
        micros = BF16S;
    }
#endif
#if defined(__AVX512VNNI__)
    if (IS_INTEGER(kind)) {
        quantize_rows(a, lda, m, k, kind, narrowed);
        k = words(k, kind);
        lda = k + 1;
        size = (k + behind(kind)) * NR;
        rows_of = narrowed;
        micros = kind == INT8 ? INT8S : INT16S;
    }
#endif
    int64_t n_blocks = (m + MR - 1) / MR;
    int64_t n_panels = mode == GATED ? (n + VL - 1) / VL : (n + NR - 1) / NR;
    for (int64_t panel = 0; panel < n_panels; panel++, w += size) {
        for (int64_t block = 0; block < n_blocks; block++) {
            int64_t from = m * block / n_blocks, rows = m * (block + 1) / n_blocks - from;
            int64_t width = mode == GATED ? VL : NR, column = panel * width;
            /* The first blocks fetch the next panel: half a panel is a line for each step. */
            const float *next = panel + 1 < n_panels && block < 2 ? w + size + block * k * LINE : w;
            if (mode != GATED && !bias && width <= n - column) {
                micros[rows](rows_of + from * lda, lda, w, k, out + from * ldo + column, ldo,
                             mode == ADD, next);
                continue;
            }
            micros[rows](rows_of + from * lda, lda, w, k, tile, NR, 0, next);
            if (width > n - column) width = n - column;
            for (int64_t r = 0; r < rows; r++) {
                float *to = out + (from + r) * ldo + column;
                const float *t = tile + r * NR;
                if (mode == GATED) {
                    vec gate = LOAD(t), value = gate / (1.0f + vexp(-gate)) * LOAD(t + VL);
                    if (width == VL)
                        STORE(to, value);
                    else
                        for (int64_t c = 0; c < width; c++) to[c] = value[c];
                } else {
                    for (int64_t c = 0; c < width; c++) {
                        float value = t[c] + (bias ? bias[column + c] : 0.0f);
                        to[c] = mode == ADD ? to[c] + value : value;
                    }
                }
            }
        }
    }
}

/* Weights [n, k] (row-major, as nn.Linear keeps them) into panels; rows beyond n are zero. `up`:
 * second half of gated panels. 0: done; 1: no memory. */
int glore_pack(const float *w, const float *up, int64_t n, int64_t k, int64_t kind, float *out) {
    int64_t width = up ? VL : NR, n_steps = words(k, kind), whole = IS_INTEGER(kind);
    int32_t *column_of = whole ? malloc(4 * n_steps) : 0;
    if (whole && !column_of) return 1;
    for (int64_t column = 0; column < n; column += width, out += (n_steps + behind(kind)) * NR)
        for (int64_t c = 0; c < NR; c++) {
            int64_t row = column + (up && c >= VL ? c - VL : c), surplus = 0;
            const float *from = (up && c >= VL ? up : w) + row * k;
            if (row >= n) {
                for (int64_t i = 0; i < n_steps + behind(kind); i++) out[i * NR + c] = 0.0f;
            } else if (whole) {
                memset(column_of, 0, 4 * n_steps);
                float scale = quantize(from, k, kind, 0, column_of);
                for (int64_t i = 0; i < k && kind == INT8; i++)
                    surplus += 128 * ((int8_t *)column_of)[i];
                for (int64_t i = 0; i < n_steps; i++) memcpy(out + i * NR + c, column_of + i, 4);
                out[n_steps * NR + c] = scale;
                out[(n_steps + 1) * NR + c] = (float)surplus * scale;
            } else {
                for (int64_t i = 0; i < n_steps; i++)
                    if (kind == FP32)
                        out[i * NR + c] = from[i];
                    else
                        halve(from + 2 * i, 0, 1, k - 2 * i < 2 ? 1 : 2,
                              (int32_t *)out + i * NR + c);
            }
        }
    free(column_of);
    return 0;
}

/* Floats that the panels of weights [n, k] take. */
int64_t glore_packed_size(int64_t n, int64_t k, int64_t gated, int64_t kind) {
    return (n + (gated ? VL : NR) - 1) / (gated ? VL : NR) * (words(k, kind) + behind(kind)) * NR;
}

/* ---- attention ---- */

/* Hide what query i may not see, then softmax without the division; returns the sum. */
static float weigh(const Batch *b, const Heads *h, int64_t i, const int32_t *pages, float *s) {
    int64_t n = b->n_pages[i], first = h->window > 0 ? b->positions[i] - h->window + 1 : 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t end = j == n - 1 ? b->n_last[i] : b->fill[pages[j]],
                begin = first - b->start[pages[j]];
        float *of = s + j * PAGE;
        if (h->softcap > 0)
            for (int64_t t = 0; t < PAGE; t++) of[t] = tanhf(of[t] / h->softcap) * h->softcap;
        if (end == PAGE && begin <= 0) continue;
        for (int64_t t = 0; t < PAGE; t++) of[t] = t < end && t >= begin ? of[t] : -INFINITY;
    }
    vec most = LOAD(s), total = (vec){0};
    for (int64_t t = VL; t < n * PAGE; t += VL) {
        vec x = LOAD(s + t);
        ivec more = x > most;
        most = (vec)(((ivec)x & more) | ((ivec)most & ~more));
    }
    float top = most[0];
    for (int l = 1; l < VL; l++)
        if (most[l] > top) top = most[l];
    for (int64_t t = 0; t < n * PAGE; t += VL) {
        vec e = vexp_below(LOAD(s + t) - top);
        STORE(s + t, e);
        total += e;
    }
    return across(total);
}

/* Queries [row, row + n) of a block go through pages [from, to) of their chains together: part of
 * the tree of pages. */
typedef struct {
    int16_t row, n, from, to;
} Tile;

/* Where two chains part, for those that agree on `same` pages and have n at least. */
INLINE int64_t parting(const int32_t *pages, const int32_t *other, int64_t same, int64_t n) {
    if (other == pages) return n;
    while (same < n && other[same] == pages[same]) same++;
    return same;
}

/* The tiles of queries [first, last), parents before children; `depth`: pages before them that are
 * theirs all. Returns where the list ends. */
static Tile *tiles_of(const Batch *b, int64_t block, int64_t first, int64_t last, int64_t depth,
                      Tile *to) {
    while (first < last) {
        const int32_t *pages = b->table + b->chain[first] * b->stride;
        int64_t end = first + 1, common = b->n_pages[first];
        if (depth < common) {
            /* Those that have the next page in common, and how many more. */
            for (; end < last && depth < b->n_pages[end]; end++) {
                const int32_t *other = b->table + b->chain[end] * b->stride;
                if (other[depth] != pages[depth]) break;
                common = parting(pages, other, depth + 1,
                                 b->n_pages[end] < common ? b->n_pages[end] : common);
            }
            *to++ = (Tile){first - block, end - first, depth, common};
            to = tiles_of(b, block, first, end, common, to);
        }
        first = end;
    }
    return to;
}

INLINE int64_t queries_together(const Heads *h) {
    return at_least(BLOCK / (h->n_heads / h->n_kv), 1);
}

/* Key heads whose scores are kept at once: a quarter of a megabyte of them. */
INLINE int64_t heads_in_turn(const Batch *b, const Heads *h) {
    int64_t n =
        at_least((1 << 16) / (queries_together(h) * (h->n_heads / h->n_kv) * b->stride * PAGE), 1);
    return n < h->n_kv ? n : h->n_kv;
}

/* Floats of scratch memory that attention needs: scores, sums (of even and odd tokens) and a total
 * for every lane. */
static int64_t attention_size(const Batch *b, const Heads *h) {
    return queries_together(h) * heads_in_turn(b, h) * (h->n_heads / h->n_kv) *
           (b->stride * PAGE + 2 * h->padded + 1);
}

/* The first of as few and as equal parts of n as may have `most` each. */
INLINE int64_t even_part(int64_t n, int64_t most) {
    return (n + (n + most - 1) / most - 1) / ((n + most - 1) / most);
}

/* Tokens of the last page of a tile that the query needs, if it alone goes through it; else all. */
INLINE int64_t tokens_in(const Batch *b, int64_t i, const Tile *t) {
    return t->n == 1 && t->to == b->n_pages[i] ? b->n_last[i] : PAGE;
}

#define STORED float
#define GET(p) LOAD(p)
#define PUT(p, v) STORE(p, v)
#define PUT_ONE(p, x) (*(p) = (x))
#define NAME(x) x##_single
#include "pages.h"
#undef STORED
#undef GET
#undef PUT
#undef PUT_ONE
#undef NAME
#undef MOST
#undef MOST_SUMS
#undef MOST_OWN

#if defined(__AVX512VNNI__)
/* A number too large for a float16 becomes the largest, since infinities would make NaNs of what is
 * hidden. */
#define STORED uint16_t
#define GET(p) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p))))
#define PUT(p, v)                                                                         \
    _mm256_storeu_si256(                                                                  \
        (__m256i *)(p),                                                                   \
        _mm512_cvtps_ph(_mm512_max_ps(_mm512_set1_ps(-65504),                             \
                                      _mm512_min_ps(_mm512_set1_ps(65504), (__m512)(v))), \
                        0))
#define PUT_ONE(p, x) \
    (*(p) = _cvtss_sh((x) > 65504.0f ? 65504.0f : (x) < -65504.0f ? -65504.0f : (x), 0))
#define NAME(x) x##_half
#include "pages.h"
#endif

static void attend(int kind, const Batch *b, const Heads *h, int64_t layer, float *q, int64_t from,
                   int64_t to, float *scratch, float *out) {
#if defined(__AVX512VNNI__)
    if (IS_INTEGER(kind)) {
        attend_half(b, h, b->keys[layer], b->values[layer], q, from, to, scratch, out);
        return;
    }
#endif
    (void)kind;
    attend_single(b, h, b->keys[layer], b->values[layer], q, from, to, scratch, out);
}

static void write(int kind, const Batch *b, const Heads *h, int64_t layer, int64_t i, int64_t head,
                  const float *key, const float *value) {
#if defined(__AVX512VNNI__)
    if (IS_INTEGER(kind)) {
        write_half(b, h, b->keys[layer], b->values[layer], i, head, key, value);
        return;
    }
#endif
    (void)kind;
    write_single(b, h, b->keys[layer], b->values[layer], i, head, key, value);
}

/* ---- threads ---- */

typedef struct {
    int n;
    int arrived, round;
} Barrier;

static void wait_all(Barrier *b) {
    if (b->n == 1) return;
    int round = __atomic_load_n(&b->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == b->n) {
        __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
        __atomic_add_fetch(&b->round, 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins > 2000) sched_yield();
}

typedef struct {
    const Model *m;
    const Batch *b;
    Heads heads;
    Barrier *barrier;
    void (*work)(void *);
    int index;
    float *x, *q;  /* shared [n, hidden], [n, n_heads, padded] */
    float *memory; /* own scratch */
    const float *in_q, *in_k, *in_v;
    float *out;
    int64_t layer;
} Job;

static void rotate(const float *restrict x, const float *restrict cosine,
                   const float *restrict sine, int64_t d, float scale, float *restrict out) {
    int64_t half = d / 2;
    for (int64_t c = 0; c < half; c++) {
        float a = x[c], z = x[c + half];
        out[c] = (a * cosine[c] - z * sine[c]) * scale;
        out[c + half] = (z * cosine[c + half] + a * sine[c + half]) * scale;
    }
}

static int64_t scratch_size(const Model *m, const Batch *b, const Heads *h) {
    int64_t qkv = (h->n_heads + 2 * h->n_kv) * h->head_dim;
    return CHUNK * (at_least(m->hidden, h->n_heads * h->head_dim) + at_least(qkv, m->inter)) +
           attention_size(b, h) + 2 * h->padded +
           CHUNK * (at_least(at_least(m->hidden, m->inter), h->n_heads * h->head_dim) + 5) / 2;
}

static void forward(void *argument) {
    Job *job = argument;
    const Model *m = job->m;
    const Batch *b = job->b;
    Heads h = job->heads;
    int64_t begin = b->n * job->index / job->barrier->n,
            end = b->n * (job->index + 1) / job->barrier->n;
    int64_t d = h.head_dim, n_q = h.n_heads * d, n_k = h.n_kv * d, hidden = m->hidden;
    float *x = job->x, *narrow = job->memory, *wide = narrow + CHUNK * at_least(hidden, n_q),
          *scratch = wide + CHUNK * at_least(n_q + 2 * n_k, m->inter);
    float *head = scratch + attention_size(b, &h);
    int32_t *narrowed = (int32_t *)(head + 2 * h.padded);
    int kind = m->kind;
    for (int64_t i = begin; i < end; i++)
        memcpy(x + i * hidden, m->embed + b->tokens[i] * hidden, hidden * sizeof(float));
    for (int64_t l = 0; l < m->n_layers; l++) {
        const Layer *layer = m->layers + l;
        h.window = layer->window;
        for (int64_t from = begin; from < end; from += CHUNK) {
            int64_t rows = end - from < CHUNK ? end - from : CHUNK;
            for (int64_t r = 0; r < rows; r++)
                rms_norm(x + (from + r) * hidden, layer->input_norm, narrow + r * hidden, hidden,
                         (float)m->eps);
            product(narrow, hidden, layer->qkv, layer->qkv_bias, rows, n_q + 2 * n_k, hidden, wide,
                    n_q + 2 * n_k, SET, kind, narrowed);
            for (int64_t r = 0; r < rows; r++) {
                int64_t i = from + r;
                float *qkv = wide + r * (n_q + 2 * n_k);
                const float *cosine = m->cosine + b->positions[i] * d,
                            *sine = m->sine + b->positions[i] * d;
                for (int64_t j = 0; j < h.n_heads; j++) {
                    float *of = qkv + j * d, *to = job->q + (i * h.n_heads + j) * h.padded;
                    if (layer->q_norm) rms_norm(of, layer->q_norm, of, d, (float)m->eps);
                    rotate(of, cosine, sine, d, h.scale, to);
                    memset(to + d, 0, (h.padded - d) * sizeof(float));
                }
                for (int64_t j = 0; j < h.n_kv; j++) {
                    float *of = qkv + n_q + j * d;
                    if (layer->k_norm) rms_norm(of, layer->k_norm, of, d, (float)m->eps);
                    rotate(of, cosine, sine, d, 1.0f, head);
                    write(kind, b, &h, l, i, j, head, qkv + n_q + n_k + j * d);
                }
            }
        }
        if (b->dependent) wait_all(job->barrier);
        for (int64_t from = begin; from < end; from += CHUNK) {
            int64_t rows = end - from < CHUNK ? end - from : CHUNK;
            attend(kind, b, &h, l, job->q + from * h.n_heads * h.padded, from, from + rows, scratch,
                   narrow);
            product(narrow, n_q, layer->out, layer->out_bias, rows, hidden, n_q, x + from * hidden,
                    hidden, ADD, kind, narrowed);
            for (int64_t r = 0; r < rows; r++)
                rms_norm(x + (from + r) * hidden, layer->mlp_norm, narrow + r * hidden, hidden,
                         (float)m->eps);
            product(narrow, hidden, layer->gate_up, 0, rows, m->inter, hidden, wide, m->inter,
                    GATED, kind, narrowed);
            if (kind == INT8) rotate_rows(wide, rows, m->inter);
            product(wide, m->inter, layer->down, 0, rows, hidden, m->inter, x + from * hidden,
                    hidden, ADD, kind, narrowed);
        }
    }
    wait_all(job->barrier);
    begin = b->n_selected * job->index / job->barrier->n,
    end = b->n_selected * (job->index + 1) / job->barrier->n;
    for (int64_t from = begin; from < end; from += CHUNK) {
        int64_t rows = end - from < CHUNK ? end - from : CHUNK;
        for (int64_t r = 0; r < rows; r++)
            rms_norm(x + b->selected[from + r] * hidden, m->final_norm, narrow + r * hidden, hidden,
                     (float)m->eps);
        product(narrow, hidden, m->head, m->head_bias, rows, m->n_out, hidden,
                b->logits + from * m->n_out, m->n_out, SET, (int)m->head_kind, narrowed);
    }
}

static void attend_only(void *argument) {
    Job *job = argument;
    const Batch *b = job->b;
    Heads h = job->heads;
    int64_t begin = b->n * job->index / job->barrier->n,
            end = b->n * (job->index + 1) / job->barrier->n, d = h.head_dim;
    for (int64_t i = begin; i < end; i++) {
        for (int64_t j = 0; j < h.n_kv; j++)
            write(FP32, b, &h, job->layer, i, j, job->in_k + (i * h.n_kv + j) * d,
                  job->in_v + (i * h.n_kv + j) * d);
        for (int64_t j = 0; j < h.n_heads; j++) {
            float *to = job->q + (i * h.n_heads + j) * h.padded;
            const float *from = job->in_q + (i * h.n_heads + j) * d;
            for (int64_t c = 0; c < h.padded; c++) to[c] = c < d ? from[c] * h.scale : 0.0f;
        }
    }
    wait_all(job->barrier);
    attend(FP32, b, &h, job->layer, job->q + begin * h.n_heads * h.padded, begin, end, job->memory,
           job->out + begin * h.n_heads * d);
}

/* Kept between calls of a thread: fresh memory would have to be paged in every time. */
static float *workspace(int64_t n) {
    static __thread float *memory = 0;
    static __thread int64_t size = 0;
    if (n > size) {
        free(memory);
        memory = aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
        size = memory ? n : 0;
    }
    return memory;
}

/* ---- drawing ---- */

#define SPAN (4 * VL) /* tokens whose probabilities are summed first */
/* more than two ways to these sums differ by (exponentials to 2 ulp, a few roundings), as a share
 * of the last */
#define MARGIN 1e-6

/* The lowest token of the highest logit, or -1 where logits are not finite. */
static int64_t likeliest(const float *x, int64_t n) {
    int64_t best = 0;
    int broken = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        broken |= (bits & 0x7f800000) == 0x7f800000;
        if (x[i] > x[best]) best = i;
    }
    return broken ? -1 : best;
}

/* The highest of n logits over the temperature. */
static float highest(const float *x, int64_t n, float temperature) {
    float top = -INFINITY;
    vec most[4] = {splat(top), splat(top), splat(top), splat(top)};
    int64_t done = n / SPAN * SPAN;
    for (int64_t i = 0; i < done; i += SPAN)
        for (int p = 0; p < 4; p++) {
            vec y = LOAD(x + i + p * VL);
            ivec more = y > most[p];
            most[p] = (vec)(((ivec)y & more) | ((ivec)most[p] & ~more));
        }
    for (int64_t i = done; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int p = 0; p < 4; p++)
        for (int l = 0; l < VL; l++) top = most[p][l] > top ? most[p][l] : top;
    return top / temperature;
}

/* Numbers in proportion to the probabilities of a span of logits; returns their sum. */
INLINE float weights_of(const float *x, float temperature, float top, vec *p) {
    vec sum = (vec){0};
    for (int i = 0; i < 4; i++) {
        vec y = LOAD(x + i * VL);
        if (temperature != 1.0f) y = y / splat(temperature);
        p[i] = vexp_below(y - splat(top));
        sum += p[i];
    }
    return across(sum);
}

/* The last span of n logits, filled up with tokens that are never drawn. */
static void last_span(const float *x, int64_t n, float *out) {
    int64_t from = (n - 1) / SPAN * SPAN;
    for (int64_t i = 0; i < SPAN; i++) out[i] = from + i < n ? x[from + i] : -INFINITY;
}

/* The distribution function of logits [n] at this temperature: `sums` [n / SPAN + 1] up to the end
   of each span. Returns the last one, or -1 where it is not finite. */
static double distribution(const float *x, int64_t n, float temperature, float top, double *sums) {
    double total = 0;
    int64_t n_whole = (n - 1) / SPAN;
    vec p[4];
    float last[SPAN];
    if (temperature == 1.0f)
        for (int64_t span = 0; span < n_whole; span++)
            sums[span] = total += weights_of(x + span * SPAN, 1.0f, top, p);
    else
        for (int64_t span = 0; span < n_whole; span++)
            sums[span] = total += weights_of(x + span * SPAN, temperature, top, p);
    last_span(x, n, last);
    sums[n_whole] = total += weights_of(last, temperature, top, p);
    return total > 0 && total < 1e30 ? total : -1;
}

/* The token at `point` of it, or -1 where that is too near a step of it to be sure. */
static int64_t drawn(const float *x, int64_t n, float temperature, float top, const double *sums,
                     double total, float point) {
    if (total < 0) return -1;
    double at = point * total, low, high;
    int64_t n_spans = (n + SPAN - 1) / SPAN, span = 0, above = n_spans - 1, i = -1;
    while (span < above) { /* the first span that ends behind it, or the last one */
        int64_t middle = (span + above) / 2;
        if (sums[middle] <= at)
            span = middle + 1;
        else
            above = middle;
    }
    vec p[4];
    float last[SPAN], e[SPAN];
    if (span == n_spans - 1) last_span(x, n, last);
    weights_of(span == n_spans - 1 ? last : x + span * SPAN, temperature, top, p);
    for (int v = 0; v < 4; v++) STORE(e + v * VL, p[v]);
    high = span ? sums[span - 1] : 0;
    do low = high, high += e[++i];
    while (high <= at && i < SPAN - 1);
    i += span * SPAN;
    return at - low > MARGIN * total && high - at > MARGIN * total && i < n ? i : -1;
}

typedef struct {
    const float *logits;
    const int64_t *row;
    int64_t from, to, n_out;
    const float *temperature, *point;
    int64_t *tokens;
    double *sums; /* own scratch */
} Drawing;

static void *draw_part(void *argument) {
    Drawing *d = argument;
    double total = -1;
    float top = 0;
    for (int64_t r = d->from; r < d->to; r++) {
        const float *x = d->logits + d->row[r] * d->n_out;
        float t = d->temperature[r];
        int again = r > d->from && d->row[r] == d->row[r - 1] && t == d->temperature[r - 1];
        if (t > 0) {
            if (!again) {
                top = highest(x, d->n_out, t);
                total = distribution(x, d->n_out, t, top, d->sums);
            }
            d->tokens[r] = drawn(x, d->n_out, t, top, d->sums, total, d->point[r]);
        } else
            d->tokens[r] = again ? d->tokens[r - 1] : likeliest(x, d->n_out);
    }
    return 0;
}

/* Logits for which another thread is worth its start. */
#define DRAWN_APART (1 << 18)

/* A token for each of n completions, from its row [n] of the logits [rows, n_out], at temperature
   [n] (0: the likeliest) and point [n] in [0, 1); -1: not sure, to be drawn with care. What
   completions of one row next to each other share is computed once. 0: done; 1: no memory. */
int glore_draw(const float *logits, const int64_t *row, int64_t n, int64_t n_out,
               const float *temperature, const float *point, int64_t *tokens, int64_t n_threads) {
    int64_t most = at_least(n * n_out / DRAWN_APART, 1), size = n_out / SPAN + 1;
    if (n_threads > most) n_threads = most;
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads < 1) n_threads = 1;
    double *sums = (double *)workspace(2 * size * n_threads);
    if (!sums) return 1;
    Drawing parts[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    for (int t = 0; t < n_threads; t++)
        parts[t] = (Drawing){logits,      row,   n * t / n_threads, n * (t + 1) / n_threads, n_out,
                             temperature, point, tokens,            sums + t * size};
    int started = 1;
    while (started < n_threads &&
           pthread_create(&threads[started], 0, draw_part, &parts[started]) == 0)
        started++;
    draw_part(&parts[0]);
    for (int t = started; t < n_threads; t++) draw_part(&parts[t]);
    for (int t = 1; t < started; t++) pthread_join(threads[t], 0);
    return 0;
}

/* ---- starting ---- */

static void *begin_when_all_are_there(void *argument) {
    Job *job = argument;
    while (__atomic_load_n(&job->barrier->n, __ATOMIC_ACQUIRE) == 0) sched_yield();
    job->work(job);
    return 0;
}

static int run(void (*work)(void *), Job job, int64_t n_threads, int64_t n_x, int64_t n_q,
               int64_t n_scratch) {
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads > job.b->n) n_threads = job.b->n;
    if (n_threads < 1) return 0;
    float *memory = workspace(n_x + n_q + n_threads * n_scratch);
    if (!memory) return 1;
    Barrier barrier = {0, 0, 0};
    Job jobs[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    int started = 1;
    job.barrier = &barrier, job.x = memory, job.q = memory + n_x, job.work = work;
    for (int t = 0; t < n_threads; t++)
        jobs[t] = job, jobs[t].index = t, jobs[t].memory = memory + n_x + n_q + t * n_scratch;
    while (started < n_threads &&
           pthread_create(&threads[started], 0, begin_when_all_are_there, &jobs[started]) == 0)
        started++;
    /* fewer than wanted share the work among them */
    __atomic_store_n(&barrier.n, started, __ATOMIC_RELEASE);
    work(&jobs[0]);
    for (int t = 1; t < started; t++) pthread_join(threads[t], 0);
    return 0;
}

/* 0: done; 1: no memory. */
int glore_forward(const Model *m, const Batch *b, int64_t n_threads) {
    Heads h = {m->n_heads,      m->n_kv, m->head_dim, (m->head_dim + PAGE - 1) / PAGE * PAGE, 0,
               (float)m->scale, 0};
    Job job = {.m = m, .b = b, .heads = h};
    return run(forward, job, n_threads, b->n * m->hidden, b->n * m->n_heads * h.padded,
               scratch_size(m, b, &h));
}

/* One layer's attention for models whose forward pass is transformers': q [n, n_heads, D], k and v
 * [n, n_kv, D] -> out [n, n_heads, D]. */
int glore_attend(const Batch *b, int64_t layer, const float *q, const float *k, const float *v,
                 float *out, int64_t n_heads, int64_t n_kv, int64_t head_dim, double scale,
                 double softcap, int64_t window, int64_t n_threads) {
    Heads h = {n_heads, n_kv,         head_dim,      (head_dim + PAGE - 1) / PAGE * PAGE,
               window,  (float)scale, (float)softcap};
    Job job = {.b = b, .heads = h, .in_q = q, .in_k = k, .in_v = v, .out = out, .layer = layer};
    return run(attend_only, job, n_threads, 0, b->n * n_heads * h.padded, attention_size(b, &h));
}
