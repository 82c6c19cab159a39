/* Attention over a tree of pages, and the whole forward pass of Llama-like models, for one or more CPU cores.

   Compiled at first use by glore.sampling.native with the machine's own C compiler (GCC or Clang vector extensions, no
   other dependency); where there is none, the same work is done by torch (glore.sampling.attention). float32 throughout.

   Words. A *page* holds the keys and values of up to PAGE consecutive tokens of one layer: keys [H, D, PAGE] (a vector of
   tokens per channel), values [H, PAGE, D]. A *query* is one token that is being computed: it writes its own key and value
   to one page and attends to the pages of its chain (every token of a prompt is stored once, whoever continues it).
   Queries that stand next to each other go through the pages that they share together, wherever their chains part, so that
   each key and value is loaded once for up to BLOCK of them. D is padded to a multiple of PAGE with zeros. */

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VL 16
#define MR 12
#elif defined(__AVX2__)
#define VL 8
#define MR 6
#else
#define VL 4
#define MR 8
#endif
#define NR (2 * VL)   /* columns of a weight panel */
#define PAGE 16       /* tokens of a page */
#define PV (PAGE / VL)
#define NEIGHBOURS 8  /* of them, those that decide together which values are summed as shared ones */
#define BLOCK 24       /* queries x query heads that go through a page together */
#define CHUNK 96      /* rows whose activations stay in the cache */
#define MAX_THREADS 64

typedef float vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define LOAD(p) (*(const vec *)(p))
#define FMA(a, b, c) ((a) * (b) + (c))
#define STORE(p, v) (*(vec *)(p) = (v))

typedef struct {
    const float *input_norm, *qkv, *qkv_bias, *q_norm, *k_norm, *out, *out_bias, *mlp_norm, *gate_up, *down;
    int64_t window; /* tokens a query may look back, itself included; 0: all */
} Layer;

typedef struct {
    int64_t n_layers, hidden, n_heads, n_kv, head_dim, inter, n_out, half; /* half: weights in bfloat16, two to a word */
    const float *embed, *final_norm, *head, *head_bias, *cosine, *sine;
    const Layer *layers;
    double eps, scale;
} Model;

typedef struct {
    int64_t n, n_selected, stride, dependent; /* dependent: queries of one batch read each other's keys (prompts) */
    const int32_t *tokens, *positions;        /* [n] */
    const int32_t *write_page, *write_offset; /* [n]; page -1: the key and value are there already */
    const int32_t *chain, *n_pages, *n_last;  /* [n]: row of `table`; pages of it that count; tokens of the last page that count */
    const int32_t *table;                     /* [chains, stride] page numbers */
    const int32_t *fill, *start;              /* [pages]: tokens in a page, position of its first */
    float **keys, **values;                   /* [layers] */
    const int32_t *selected;                  /* [n_selected] queries whose logits are wanted */
    float *logits;                            /* [n_selected, n_out] */
} Batch;

typedef struct {
    int64_t n_heads, n_kv, head_dim, padded, window;
    float scale, softcap;
} Heads;

/* ---- elementwise ---- */

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
    ivec low = x < splat(-87.0f), high = x > splat(88.0f);
    return vexp_inside((vec)(((ivec)splat(-87.0f) & low) | ((ivec)splat(88.0f) & high) | ((ivec)x & ~(low | high))));
}

/* e^x for x <= 0; 0 below -87, and a NaN stays one. */
INLINE vec vexp_below(vec x) { return (vec)((ivec)vexp_inside(x) & ~(x < splat(-87.0f))); }

static void rms_norm(const float *x, const float *weight, float *out, int64_t n, float eps) {
    float total = 0;
    for (int64_t i = 0; i < n; i++) total += x[i] * x[i];
    float inverse = 1.0f / sqrtf(total / (float)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = x[i] * inverse * weight[i];
}

/* ---- matrix products: out [m, n] from rows a [m, k] and panels w [n / NR][k][NR] ---- */

enum { SET, ADD, GATED };

/* WORD: what is loaded for one row and one step of k; STEP: its product with a vector of weights, added to a sum. */
#define MICRO(NAME, R, WORD, STEP)                                                                             \
    static void NAME##R(const void *rows, int64_t lda, const float *w, int64_t k, float *out, int64_t ldo, int add) { \
        const WORD *a = rows;                                                                                  \
        vec acc[R][2];                                                                                         \
        for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = (vec){0};                                          \
        for (int64_t i = 0; i < k; i++, w += NR) {                                                             \
            vec w0 = LOAD(w), w1 = LOAD(w + VL);                                                               \
            _Pragma("GCC unroll 12") for (int r = 0; r < R; r++) {                                             \
                acc[r][0] = STEP(acc[r][0], a[r * lda + i], w0);                                               \
                acc[r][1] = STEP(acc[r][1], a[r * lda + i], w1);                                               \
            }                                                                                                  \
        }                                                                                                      \
        _Pragma("GCC unroll 12") for (int r = 0; r < R; r++, out += ldo) {                                     \
            if (add) acc[r][0] += LOAD(out), acc[r][1] += LOAD(out + VL);                                      \
            STORE(out, acc[r][0]);                                                                             \
            STORE(out + VL, acc[r][1]);                                                                        \
        }                                                                                                      \
    }
#if MR == 12
#define MICROS(NAME, WORD, STEP)                                                                               \
    MICRO(NAME, 1, WORD, STEP) MICRO(NAME, 2, WORD, STEP) MICRO(NAME, 3, WORD, STEP) MICRO(NAME, 4, WORD, STEP) \
    MICRO(NAME, 5, WORD, STEP) MICRO(NAME, 6, WORD, STEP) MICRO(NAME, 7, WORD, STEP) MICRO(NAME, 8, WORD, STEP) \
    MICRO(NAME, 9, WORD, STEP) MICRO(NAME, 10, WORD, STEP) MICRO(NAME, 11, WORD, STEP) MICRO(NAME, 12, WORD, STEP)
#define LIST(NAME) {0, NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6, NAME##7, NAME##8, NAME##9, NAME##10, NAME##11, NAME##12}
#elif MR == 8
#define MICROS(NAME, WORD, STEP)                                                                               \
    MICRO(NAME, 1, WORD, STEP) MICRO(NAME, 2, WORD, STEP) MICRO(NAME, 3, WORD, STEP) MICRO(NAME, 4, WORD, STEP) \
    MICRO(NAME, 5, WORD, STEP) MICRO(NAME, 6, WORD, STEP) MICRO(NAME, 7, WORD, STEP) MICRO(NAME, 8, WORD, STEP)
#define LIST(NAME) {0, NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6, NAME##7, NAME##8}
#else
#define MICROS(NAME, WORD, STEP)                                                                               \
    MICRO(NAME, 1, WORD, STEP) MICRO(NAME, 2, WORD, STEP) MICRO(NAME, 3, WORD, STEP) MICRO(NAME, 4, WORD, STEP) \
    MICRO(NAME, 5, WORD, STEP) MICRO(NAME, 6, WORD, STEP)
#define LIST(NAME) {0, NAME##1, NAME##2, NAME##3, NAME##4, NAME##5, NAME##6}
#endif
#define STEP_SINGLE(sum, a, w) ((sum) + (a) * (w))
MICROS(micro_, float, STEP_SINGLE)
typedef void (*Micro)(const void *, int64_t, const float *, int64_t, float *, int64_t, int);
static const Micro SINGLE[MR + 1] = LIST(micro_);

#if defined(__AVX512BF16__)
#define STEP_HALF(sum, a, w) ((vec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_epi32(a), (__m512bh)(w)))
MICROS(half_, int32_t, STEP_HALF)
static const Micro HALF[MR + 1] = LIST(half_);
#endif

INLINE uint32_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0; /* a NaN stays one */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* Whether products in bfloat16 (sums in float32) are compiled in. */
int64_t glore_has_half(void) {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

/* Rows [m, k] to bfloat16, two to a word [m, (k + 1) / 2]. */
static void halve(const float *a, int64_t lda, int64_t m, int64_t k, int32_t *out) {
    for (int64_t r = 0; r < m; r++, a += lda) {
        int64_t i = 0;
#if defined(__AVX512BF16__)
        for (; i + 16 <= k; i += 16, out += 8) _mm256_storeu_si256((__m256i *)out, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(a + i)));
#endif
        for (; i < k; i += 2) *out++ = (int32_t)(to_half(a[i]) | (i + 1 < k ? to_half(a[i + 1]) << 16 : 0));
    }
}

/* SET: out = a w + bias; ADD: out += a w + bias; GATED: panels hold VL gate and VL up columns, out = silu(gate) * up. */
static void product(const float *a, int64_t lda, const float *w, const float *bias, int64_t m, int64_t n, int64_t k, float *out,
                    int64_t ldo, int mode, int32_t *half) {
    float tile[MR * NR];
    const int32_t *rows_of = (const int32_t *)a;
    const Micro *micros = SINGLE;
#if defined(__AVX512BF16__)
    if (half) {
        halve(a, lda, m, k, half);
        k = lda = (k + 1) / 2;
        rows_of = half;
        micros = HALF;
    }
#else
    (void)half;
#endif
    int64_t n_blocks = (m + MR - 1) / MR;
    int64_t n_panels = mode == GATED ? (n + VL - 1) / VL : (n + NR - 1) / NR;
    for (int64_t panel = 0; panel < n_panels; panel++, w += k * NR) {
        for (int64_t block = 0; block < n_blocks; block++) {
            int64_t from = m * block / n_blocks, rows = m * (block + 1) / n_blocks - from;
            int64_t width = mode == GATED ? VL : NR, column = panel * width;
            if (mode != GATED && !bias && width <= n - column) {
                micros[rows](rows_of + from * lda, lda, w, k, out + from * ldo + column, ldo, mode == ADD);
                continue;
            }
            micros[rows](rows_of + from * lda, lda, w, k, tile, NR, 0);
            if (width > n - column) width = n - column;
            for (int64_t r = 0; r < rows; r++) {
                float *to = out + (from + r) * ldo + column;
                const float *t = tile + r * NR;
                if (mode == GATED) {
                    vec gate = LOAD(t), value = gate / (1.0f + vexp(-gate)) * LOAD(t + VL);
                    if (width == VL) STORE(to, value);
                    else for (int64_t c = 0; c < width; c++) to[c] = value[c];
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

/* Weights [n, k] (row-major, as nn.Linear keeps them) into panels; rows beyond n are zero. `up`: second half of gated panels. */
void glore_pack(const float *w, const float *up, int64_t n, int64_t k, int64_t half, float *out) {
    int64_t width = up ? VL : NR, n_steps = half ? (k + 1) / 2 : k;
    for (int64_t column = 0; column < n; column += width, out += n_steps * NR)
        for (int64_t i = 0; i < n_steps; i++)
            for (int64_t c = 0; c < NR; c++) {
                int64_t row = column + (up && c >= VL ? c - VL : c);
                const float *from = (up && c >= VL ? up : w) + row * k;
                if (row >= n) out[i * NR + c] = 0.0f;
                else if (!half) out[i * NR + c] = from[i];
                else halve(from + 2 * i, 0, 1, k - 2 * i < 2 ? 1 : 2, (int32_t *)out + i * NR + c);
            }
}

int64_t glore_packed_size(int64_t n, int64_t k, int64_t gated) { return (n + (gated ? VL : NR) - 1) / (gated ? VL : NR) * k * NR; }

/* ---- attention ---- */

/* Scores of R queries against the keys of n pages. */
#define SCORES(R)                                                                                                          \
    static void scores_##R(const float *keys, int64_t stride, const int32_t *pages, int64_t n, int64_t d, float *const *q, \
                           float *const *out) {                                                                            \
        for (int64_t j = 0; j < n; j++) {                                                                                  \
            const float *key = keys + pages[j] * stride;                                                                   \
            vec acc[R][PV];                                                                                                \
            for (int r = 0; r < R; r++) for (int p = 0; p < PV; p++) acc[r][p] = (vec){0};                                 \
            for (int64_t i = 0; i < d; i++) {                                                                              \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                                                      \
                    vec s = splat(q[r][i]);                                                                                \
                    for (int p = 0; p < PV; p++) acc[r][p] += s * LOAD(key + i * PAGE + p * VL);                           \
                }                                                                                                          \
            }                                                                                                              \
            for (int r = 0; r < R; r++) for (int p = 0; p < PV; p++) STORE(out[r] + j * PAGE + p * VL, acc[r][p]);         \
        }                                                                                                                  \
    }

/* out[r] += weights[r] x values over n pages, R queries and PAGE channels at a time. */
#define SUMS(R)                                                                                                              \
    static void sums_##R(const float *values, int64_t stride, const int32_t *pages, int64_t n, int64_t d, float *const *w,   \
                         float *const *out) {                                                                                \
        for (int64_t c = 0; c < d; c += PAGE) {                                                                              \
            vec acc[R][PV];                                                                                                  \
            for (int r = 0; r < R; r++) for (int p = 0; p < PV; p++) acc[r][p] = LOAD(out[r] + c + p * VL);                  \
            for (int64_t j = 0; j < n; j++) {                                                                                \
                const float *value = values + pages[j] * stride + c;                                                         \
                for (int64_t t = 0; t < PAGE; t++) {                                                           \
                    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                                                    \
                        vec s = splat(w[r][j * PAGE + t]);                                                                   \
                        for (int p = 0; p < PV; p++) acc[r][p] += s * LOAD(value + t * d + p * VL);                                  \
                    }                                                                                                        \
                }                                                                                                            \
            }                                                                                                                \
            for (int r = 0; r < R; r++) for (int p = 0; p < PV; p++) STORE(out[r] + c + p * VL, acc[r][p]);                  \
        }                                                                                                                    \
    }
typedef void (*Shared)(const float *, int64_t, const int32_t *, int64_t, int64_t, float *const *, float *const *);
SUMS(1) SUMS(2) SUMS(4)
static const Shared SUMS_OF[] = {0, sums_1, sums_2, 0, sums_4};
SCORES(1) SCORES(2) SCORES(3) SCORES(4) SCORES(5) SCORES(6)
#if PV == 1
#define MOST 8 /* as many sums as fit into registers */
SCORES(7) SCORES(8)
static const Shared SCORES_OF[] = {0, scores_1, scores_2, scores_3, scores_4, scores_5, scores_6, scores_7, scores_8};
#else
#define MOST (PV == 2 ? 6 : 4)
static const Shared SCORES_OF[] = {0, scores_1, scores_2, scores_3, scores_4, scores_5, scores_6};
#endif

/* Scores of one query against P pages that only it reads. */
#define ALONE(P)                                                                                                              \
    INLINE void alone_##P(const float *keys, int64_t stride, const int32_t *pages, const float *q, int64_t d, float *out) {   \
        const float *key[P];                                                                                                  \
        vec acc[P][PV];                                                                                                       \
        for (int r = 0; r < P; r++) key[r] = keys + pages[r] * stride;                                                        \
        for (int r = 0; r < P; r++) for (int p = 0; p < PV; p++) acc[r][p] = (vec){0};                                        \
        for (int64_t i = 0; i < d; i++) {                                                                                     \
            vec s = splat(q[i]);                                                                                              \
            for (int r = 0; r < P; r++) for (int p = 0; p < PV; p++) acc[r][p] += s * LOAD(key[r] + i * PAGE + p * VL);       \
        }                                                                                                                     \
        for (int r = 0; r < P; r++) for (int p = 0; p < PV; p++) STORE(out + r * PAGE + p * VL, acc[r][p]);                   \
    }
ALONE(1) ALONE(2) ALONE(3) ALONE(4)

INLINE void scores_alone(const float *keys, int64_t stride, const int32_t *pages, int64_t n, const float *q, int64_t d, float *out) {
    for (; n >= 4; n -= 4, pages += 4, out += 4 * PAGE) alone_4(keys, stride, pages, q, d, out);
    if (n == 3) alone_3(keys, stride, pages, q, d, out);
    if (n == 2) alone_2(keys, stride, pages, q, d, out);
    if (n == 1) alone_1(keys, stride, pages, q, d, out);
}

/* One query over its own pages: even and odd tokens apart, so that two sums run side by side. */
INLINE void sums_own(const float *values, int64_t stride, const int32_t *pages, int64_t n, int64_t last, int64_t d, const float *w, float *out) {
    int64_t c = 0;
    for (; c + 2 * PAGE <= d; c += 2 * PAGE) {
        vec even[2 * PV], odd[2 * PV];
        for (int p = 0; p < 2 * PV; p++) even[p] = LOAD(out + c + p * VL), odd[p] = (vec){0};
        for (int64_t j = 0; j < n; j++) {
            const float *value = values + pages[j] * stride + c, *weight = w + j * PAGE, *end = weight + (j == n - 1 ? (last + 1) / 2 * 2 : PAGE);
            _Pragma("GCC unroll 1") for (; weight < end; weight += 2, value += 2 * d) {
                vec a = splat(weight[0]), b = splat(weight[1]);
                for (int p = 0; p < 2 * PV; p++) even[p] = FMA(a, LOAD(value + p * VL), even[p]);
                for (int p = 0; p < 2 * PV; p++) odd[p] = FMA(b, LOAD(value + d + p * VL), odd[p]);
            }
        }
        for (int p = 0; p < 2 * PV; p++) STORE(out + c + p * VL, even[p] + odd[p]);
    }
    for (; c < d; c += PAGE)
        for (int64_t j = 0; j < n; j++)
            for (int64_t t = 0; t < PAGE; t++)
                for (int p = 0; p < PV; p++) {
                    float *at = out + c + p * VL;
                    STORE(at, FMA(splat(w[j * PAGE + t]), LOAD(values + pages[j] * stride + t * d + c + p * VL), LOAD(at)));
                }
}

/* Hide what query i may not see, then softmax without the division; returns the sum. */
static float weigh(const Batch *b, const Heads *h, int64_t i, const int32_t *pages, float *s) {
    int64_t n = b->n_pages[i], first = h->window > 0 ? b->positions[i] - h->window + 1 : 0;
    for (int64_t j = 0; j < n; j++) {
        int64_t end = j == n - 1 ? b->n_last[i] : b->fill[pages[j]], begin = first - b->start[pages[j]];
        if (h->softcap > 0) for (int64_t t = 0; t < PAGE; t++) s[j * PAGE + t] = tanhf(s[j * PAGE + t] / h->softcap) * h->softcap;
        for (int64_t t = end; t < PAGE; t++) s[j * PAGE + t] = -INFINITY;
        for (int64_t t = 0; t < begin && t < PAGE; t++) s[j * PAGE + t] = -INFINITY;
    }
    vec most = LOAD(s), total = (vec){0};
    for (int64_t t = VL; t < n * PAGE; t += VL) { vec x = LOAD(s + t); ivec more = x > most; most = (vec)(((ivec)x & more) | ((ivec)most & ~more)); }
    float top = most[0];
    for (int l = 1; l < VL; l++) if (most[l] > top) top = most[l];
    for (int64_t t = 0; t < n * PAGE; t += VL) {
        vec e = vexp_below(LOAD(s + t) - top);
        STORE(s + t, e);
        total += e;
    }
    float sum = 0;
    for (int l = 0; l < VL; l++) sum += total[l];
    return sum;
}

/* Queries [row, row + n) of a block go through pages [from, to) of their chains together: part of the tree of pages. */
typedef struct {
    int16_t row, n, from, to;
} Tile;

/* Where two chains part, for those that agree on `same` pages and have n at least. */
INLINE int64_t parting(const int32_t *pages, const int32_t *other, int64_t same, int64_t n) {
    if (other == pages) return n;
    while (same < n && other[same] == pages[same]) same++;
    return same;
}

/* The tiles of queries [first, last), parents before children; `depth`: pages before them that are theirs all. Returns where the list ends. */
static Tile *tiles_of(const Batch *b, int64_t block, int64_t first, int64_t last, int64_t depth, Tile *to) {
    while (first < last) {
        const int32_t *pages = b->table + b->chain[first] * b->stride;
        int64_t end = first + 1, common = b->n_pages[first];
        if (depth < common) {
            /* Those that have the next page in common, and how many more. */
            for (; end < last && depth < b->n_pages[end]; end++) {
                const int32_t *other = b->table + b->chain[end] * b->stride;
                if (other[depth] != pages[depth]) break;
                common = parting(pages, other, depth + 1, b->n_pages[end] < common ? b->n_pages[end] : common);
            }
            *to++ = (Tile){first - block, end - first, depth, common};
            to = tiles_of(b, block, first, end, common, to);
        }
        first = end;
    }
    return to;
}

/* Pages that all queries of [first, last) have in common. */
static int64_t in_common(const Batch *b, int64_t first, int64_t last) {
    const int32_t *pages = b->table + b->chain[first] * b->stride;
    int64_t common = b->n_pages[first];
    for (int64_t i = first + 1; i < last; i++) {
        common = parting(pages, b->table + b->chain[i] * b->stride, 0, b->n_pages[i] < common ? b->n_pages[i] : common);
    }
    return common;
}

/* Queries [from, to): q [.., n_heads, padded] (scaled) -> out [.., n_heads * head_dim]. `scores` holds BLOCK rows of stride * PAGE. */
static void attend(const Batch *b, const Heads *h, const float *K, const float *V, float *q, int64_t from, int64_t to, float *scores,
                   float *sums, float *out) {
    int64_t d = h->padded, size = d * PAGE, stride = h->n_kv * size, group = h->n_heads / h->n_kv, width = b->stride * PAGE;
    int64_t n_near = group >= NEIGHBOURS ? 1 : NEIGHBOURS / group, n_together = group >= BLOCK ? 1 : BLOCK / group / n_near * n_near;
    for (int64_t i = from; i < to; i += n_together) {
        int64_t m = to - i < n_together ? to - i : n_together;
        Tile tiles[2 * BLOCK];
        int64_t n_tiles = tiles_of(b, i, i, i + m, 0, tiles) - tiles, common[BLOCK];
        for (int64_t r = 0; r < m; r++) {
            int64_t last = r + n_near < m ? r + n_near : m;
            common[r] = r % n_near ? common[r - 1] : in_common(b, i + r, i + last);
        }
        for (int64_t of = 0, n_of; of < h->n_heads; of += n_of) {
            /* Query heads [of, of + n_of) of one key head: all of them, unless there are more than fit into a block. */
            n_of = group - of % group < BLOCK ? group - of % group : BLOCK;
            const float *keys = K + of / group * size, *values = V + of / group * size;
            float *query[BLOCK], *score[BLOCK], *sum[BLOCK], total[BLOCK];
            for (int64_t r = 0; r < m; r++)
                for (int64_t g = 0; g < n_of; g++) {
                    int64_t lane = r * n_of + g;
                    query[lane] = q + ((i + r - from) * h->n_heads + of + g) * d;
                    score[lane] = scores + lane * width;
                    sum[lane] = sums + lane * d;
                }
            memset(sums, 0, m * n_of * d * sizeof(float));
            for (const Tile *t = tiles; t < tiles + n_tiles; t++) {
                const int32_t *pages = b->table + b->chain[i + t->row] * b->stride + t->from;
                int64_t lane = t->row * n_of, lanes = t->n * n_of, n = t->to - t->from;
                if (lanes == 1) {
                    scores_alone(keys, stride, pages, n, query[lane], d, score[lane] + t->from * PAGE);
                    continue;
                }
                float *at[BLOCK];
                for (int64_t r = 0; r < lanes; r++) at[r] = score[lane + r] + t->from * PAGE;
                for (int64_t n_parts = (lanes + MOST - 1) / MOST, part = 0; part < n_parts; part++) {
                    int64_t begin = lanes * part / n_parts, end = lanes * (part + 1) / n_parts;
                    SCORES_OF[end - begin](keys, stride, pages, n, d, query + lane + begin, at + begin);
                }
            }
            for (int64_t r = 0; r < m; r++) {
                const int32_t *pages = b->table + b->chain[i + r] * b->stride;
                int64_t n = b->n_pages[i + r], shared = common[r];
                for (int64_t lane = r * n_of; lane < (r + 1) * n_of; lane++) {
                    total[lane] = weigh(b, h, i + r, pages, score[lane]);
                    sums_own(values, stride, pages + shared, n - shared, b->n_last[i + r], d, score[lane] + shared * PAGE, sum[lane]);
                }
            }
            for (int64_t r = 0; r < m; r += n_near) {
                const int32_t *pages = b->table + b->chain[i + r] * b->stride;
                int64_t lane = r * n_of, lanes = (m - r < n_near ? m - r : n_near) * n_of;
                /* Four, two, one, and no other numbers: compilers add in another order for one than for several, so that the split
                   decides the last bits, and texts are to stay those of earlier versions. */
                for (int64_t k; lanes; lane += k, lanes -= k) {
                    k = lanes >= 4 ? 4 : lanes >= 2 ? 2 : 1;
                    SUMS_OF[k](values, stride, pages, common[r], d, score + lane, sum + lane);
                }
            }
            for (int64_t r = 0; r < m; r++)
                for (int64_t g = 0; g < n_of; g++) {
                    int64_t lane = r * n_of + g;
                    float *to_ = out + ((i + r - from) * h->n_heads + of + g) * h->head_dim, inverse = 1.0f / total[lane];
                    for (int64_t c = 0; c < h->head_dim; c++) to_[c] = sum[lane][c] * inverse;
                }
        }
    }
}

static void write(const Batch *b, const Heads *h, float *K, float *V, int64_t i, int64_t head, const float *key, const float *value) {
    if (b->write_page[i] < 0) return;
    int64_t at = (b->write_page[i] * h->n_kv + head) * h->padded * PAGE;
    float *k = K + at + b->write_offset[i], *v = V + at + b->write_offset[i] * h->padded;
    for (int64_t c = 0; c < h->head_dim; c++) k[c * PAGE] = key[c];
    memcpy(v, value, h->head_dim * sizeof(float));
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
    for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; spins++) if (spins > 2000) sched_yield();
}

typedef struct {
    const Model *m;
    const Batch *b;
    Heads heads;
    Barrier *barrier;
    void (*work)(void *);
    int index;
    float *x, *q;       /* shared [n, hidden], [n, n_heads, padded] */
    float *memory;      /* own scratch */
    const float *in_q, *in_k, *in_v;
    float *out;
    int64_t layer;
} Job;

static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

static void rotate(const float *x, const float *cosine, const float *sine, int64_t d, float scale, float *out) {
    int64_t half = d / 2;
    for (int64_t c = 0; c < half; c++) {
        float a = x[c], z = x[c + half];
        out[c] = (a * cosine[c] - z * sine[c]) * scale;
        out[c + half] = (z * cosine[c + half] + a * sine[c + half]) * scale;
    }
}

static int64_t scratch_size(const Model *m, const Batch *b, const Heads *h) {
    int64_t qkv = (h->n_heads + 2 * h->n_kv) * h->head_dim;
    return CHUNK * (at_least(m->hidden, h->n_heads * h->head_dim) + at_least(qkv, m->inter)) + BLOCK * (b->stride * PAGE + h->padded) + 2 * h->head_dim
        + CHUNK * (at_least(at_least(m->hidden, m->inter), h->n_heads * h->head_dim) + 1) / 2;
}

static void forward(void *argument) {
    Job *job = argument;
    const Model *m = job->m;
    const Batch *b = job->b;
    Heads h = job->heads;
    int64_t begin = b->n * job->index / job->barrier->n, end = b->n * (job->index + 1) / job->barrier->n;
    int64_t d = h.head_dim, n_q = h.n_heads * d, n_k = h.n_kv * d, hidden = m->hidden;
    float *x = job->x, *narrow = job->memory, *wide = narrow + CHUNK * at_least(hidden, n_q), *scores = wide + CHUNK * at_least(n_q + 2 * n_k, m->inter);
    float *sums = scores + BLOCK * b->stride * PAGE, *head = sums + BLOCK * h.padded;
    int32_t *half = m->half ? (int32_t *)(head + 2 * d) : 0;
    for (int64_t i = begin; i < end; i++) memcpy(x + i * hidden, m->embed + b->tokens[i] * hidden, hidden * sizeof(float));
    for (int64_t l = 0; l < m->n_layers; l++) {
        const Layer *layer = m->layers + l;
        float *K = b->keys[l], *V = b->values[l];
        h.window = layer->window;
        for (int64_t from = begin; from < end; from += CHUNK) {
            int64_t rows = end - from < CHUNK ? end - from : CHUNK;
            for (int64_t r = 0; r < rows; r++) rms_norm(x + (from + r) * hidden, layer->input_norm, narrow + r * hidden, hidden, (float)m->eps);
            product(narrow, hidden, layer->qkv, layer->qkv_bias, rows, n_q + 2 * n_k, hidden, wide, n_q + 2 * n_k, SET, half);
            for (int64_t r = 0; r < rows; r++) {
                int64_t i = from + r;
                float *qkv = wide + r * (n_q + 2 * n_k);
                const float *cosine = m->cosine + b->positions[i] * d, *sine = m->sine + b->positions[i] * d;
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
                    write(b, &h, K, V, i, j, head, qkv + n_q + n_k + j * d);
                }
            }
        }
        if (b->dependent) wait_all(job->barrier);
        for (int64_t from = begin; from < end; from += CHUNK) {
            int64_t rows = end - from < CHUNK ? end - from : CHUNK;
            attend(b, &h, K, V, job->q + from * h.n_heads * h.padded, from, from + rows, scores, sums, narrow);
            product(narrow, n_q, layer->out, layer->out_bias, rows, hidden, n_q, x + from * hidden, hidden, ADD, half);
            for (int64_t r = 0; r < rows; r++) rms_norm(x + (from + r) * hidden, layer->mlp_norm, narrow + r * hidden, hidden, (float)m->eps);
            product(narrow, hidden, layer->gate_up, 0, rows, m->inter, hidden, wide, m->inter, GATED, half);
            product(wide, m->inter, layer->down, 0, rows, hidden, m->inter, x + from * hidden, hidden, ADD, half);
        }
    }
    wait_all(job->barrier);
    begin = b->n_selected * job->index / job->barrier->n, end = b->n_selected * (job->index + 1) / job->barrier->n;
    for (int64_t from = begin; from < end; from += CHUNK) {
        int64_t rows = end - from < CHUNK ? end - from : CHUNK;
        for (int64_t r = 0; r < rows; r++) rms_norm(x + b->selected[from + r] * hidden, m->final_norm, narrow + r * hidden, hidden, (float)m->eps);
        product(narrow, hidden, m->head, m->head_bias, rows, m->n_out, hidden, b->logits + from * m->n_out, m->n_out, SET, half);
    }
}

static void attend_only(void *argument) {
    Job *job = argument;
    const Batch *b = job->b;
    Heads h = job->heads;
    int64_t begin = b->n * job->index / job->barrier->n, end = b->n * (job->index + 1) / job->barrier->n, d = h.head_dim;
    float *K = b->keys[job->layer], *V = b->values[job->layer];
    for (int64_t i = begin; i < end; i++) {
        for (int64_t j = 0; j < h.n_kv; j++) write(b, &h, K, V, i, j, job->in_k + (i * h.n_kv + j) * d, job->in_v + (i * h.n_kv + j) * d);
        for (int64_t j = 0; j < h.n_heads; j++) {
            float *to = job->q + (i * h.n_heads + j) * h.padded;
            const float *from = job->in_q + (i * h.n_heads + j) * d;
            for (int64_t c = 0; c < h.padded; c++) to[c] = c < d ? from[c] * h.scale : 0.0f;
        }
    }
    wait_all(job->barrier);
    attend(b, &h, K, V, job->q + begin * h.n_heads * h.padded, begin, end, job->memory, job->memory + BLOCK * b->stride * PAGE,
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

#define SPAN (4 * VL)    /* tokens whose probabilities are summed first */
#define MARGIN 1e-6      /* more than two ways to these sums differ by (exponentials to 2 ulp, a few roundings), as a share of the last */

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

/* The distribution function of logits [n] at this temperature: `e` [n + SPAN] in proportion to the probabilities, `sums` [n / SPAN + 1]
   of them up to the end of each span. Returns the last sum, or -1 where it is not finite. */
static double distribution(const float *x, int64_t n, float temperature, float *e, double *sums) {
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    top /= temperature;
    int64_t n_spans = (n + SPAN - 1) / SPAN;
    for (int64_t i = 0; i < n; i++) e[i] = x[i] / temperature - top;
    for (int64_t i = n; i < n_spans * SPAN; i++) e[i] = -INFINITY;
    double total = 0;
    for (int64_t span = 0; span < n_spans; span++) {
        vec sum = (vec){0};
        for (int64_t i = span * SPAN; i < (span + 1) * SPAN; i += VL) {
            vec p = vexp_below(LOAD(e + i));
            STORE(e + i, p);
            sum += p;
        }
        float of_span = 0;
        for (int l = 0; l < VL; l++) of_span += sum[l];
        sums[span] = total += of_span;
    }
    return total > 0 && total < 1e30 ? total : -1;
}

/* The token at `point` of it, or -1 where that is too near a step of it to be sure. */
static int64_t drawn(const float *e, const double *sums, double total, int64_t n, float point) {
    if (total < 0) return -1;
    double at = point * total, low, high;
    int64_t n_spans = (n + SPAN - 1) / SPAN, span = 0, i;
    while (span < n_spans - 1 && sums[span] <= at) span++;
    high = span ? sums[span - 1] : 0;
    i = span * SPAN - 1;
    do low = high, high += e[++i]; while (high <= at && i < (span + 1) * SPAN - 1);
    return at - low > MARGIN * total && high - at > MARGIN * total && i < n ? i : -1;
}

/* A token for each of n completions, from its row [n] of the logits [rows, n_out], at temperature [n] (0: the likeliest) and point [n] in
   [0, 1); -1: not sure, to be drawn with care. What completions of one row next to each other share is computed once. 0: done; 1: no memory. */
int glore_draw(const float *logits, const int64_t *row, int64_t n, int64_t n_out, const float *temperature, const float *point, int64_t *tokens) {
    float *e = workspace(n_out + SPAN + 2 * (n_out / SPAN + 2));
    if (!e) return 1;
    double *sums = (double *)(e + (n_out + SPAN) / SPAN * SPAN), total = -1;
    for (int64_t r = 0; r < n; r++) {
        const float *x = logits + row[r] * n_out;
        int again = r && row[r] == row[r - 1] && temperature[r] == temperature[r - 1];
        if (temperature[r] > 0) {
            if (!again) total = distribution(x, n_out, temperature[r], e, sums);
            tokens[r] = drawn(e, sums, total, n_out, point[r]);
        } else tokens[r] = again ? tokens[r - 1] : likeliest(x, n_out);
    }
    return 0;
}

/* ---- starting ---- */

static void *begin_when_all_are_there(void *argument) {
    Job *job = argument;
    while (__atomic_load_n(&job->barrier->n, __ATOMIC_ACQUIRE) == 0) sched_yield();
    job->work(job);
    return 0;
}

static int run(void (*work)(void *), Job job, int64_t n_threads, int64_t n_x, int64_t n_q, int64_t n_scratch) {
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
    for (int t = 0; t < n_threads; t++) jobs[t] = job, jobs[t].index = t, jobs[t].memory = memory + n_x + n_q + t * n_scratch;
    while (started < n_threads && pthread_create(&threads[started], 0, begin_when_all_are_there, &jobs[started]) == 0) started++;
    __atomic_store_n(&barrier.n, started, __ATOMIC_RELEASE); /* fewer than wanted share the work among them */
    work(&jobs[0]);
    for (int t = 1; t < started; t++) pthread_join(threads[t], 0);
    return 0;
}

/* 0: done; 1: no memory. */
int glore_forward(const Model *m, const Batch *b, int64_t n_threads) {
    Heads h = {m->n_heads, m->n_kv, m->head_dim, (m->head_dim + PAGE - 1) / PAGE * PAGE, 0, (float)m->scale, 0};
    Job job = {.m = m, .b = b, .heads = h};
    return run(forward, job, n_threads, b->n * m->hidden, b->n * m->n_heads * h.padded, scratch_size(m, b, &h));
}

/* One layer's attention for models whose forward pass is transformers': q [n, n_heads, D], k and v [n, n_kv, D] -> out [n, n_heads, D]. */
int glore_attend(const Batch *b, int64_t layer, const float *q, const float *k, const float *v, float *out, int64_t n_heads, int64_t n_kv,
                 int64_t head_dim, double scale, double softcap, int64_t window, int64_t n_threads) {
    Heads h = {n_heads, n_kv, head_dim, (head_dim + PAGE - 1) / PAGE * PAGE, window, (float)scale, (float)softcap};
    Job job = {.b = b, .heads = h, .in_q = q, .in_k = k, .in_v = v, .out = out, .layer = layer};
    return run(attend_only, job, n_threads, 0, b->n * n_heads * h.padded, BLOCK * (b->stride * PAGE + h.padded));
}
