/* Attention over pages whose keys and values are of the type STORED: included by forward.c once for
   each type.

   GET: a vector of VL of them at an address, as floats. PUT, PUT_ONE: floats to an address. NAME:
   what the type's functions are called. */

/* Scores of R queries against the keys of n pages of a prompt. */
#define SCORES(R)                                                                            \
    static void NAME(scores_##R)(const STORED *keys, int64_t stride, const int32_t *pages,   \
                                 int64_t n, int64_t d, float *const *q, float *const *out) { \
        for (int64_t j = 0; j < n; j++) {                                                    \
            const STORED *key = keys + pages[j] * stride;                                    \
            vec acc[R][PV];                                                                  \
            for (int r = 0; r < R; r++)                                                      \
                for (int p = 0; p < PV; p++) acc[r][p] = (vec){0};                           \
            for (int64_t i = 0; i < d; i++) {                                                \
                vec of[PV];                                                                  \
                for (int p = 0; p < PV; p++) of[p] = GET(key + i * PAGE + p * VL);           \
                _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                        \
                    vec s = splat(q[r][i]);                                                  \
                    for (int p = 0; p < PV; p++) acc[r][p] = FMA(s, of[p], acc[r][p]);       \
                }                                                                            \
            }                                                                                \
            for (int r = 0; r < R; r++)                                                      \
                for (int p = 0; p < PV; p++) STORE(out[r] + j * PAGE + p * VL, acc[r][p]);   \
        }                                                                                    \
    }

/* sums[r] (even tokens [d], then odd ones [d]) += weights[r] x values over n pages, of the last one
 * only `last` tokens, for R queries. W vectors of channels at a time, which share a weight. */
#define SUMS(R, OF, W)                                                                     \
    static void NAME(OF##R)(const STORED *values, int64_t stride, const int32_t *pages,    \
                            int64_t n, int64_t last, int64_t d, float *const *w,           \
                            float *const *sums) {                                          \
        for (int64_t c = 0; c < d; c += (W) * VL) {                                        \
            vec even[R][W], odd[R][W];                                                     \
            for (int r = 0; r < R; r++)                                                    \
                for (int p = 0; p < (W); p++) even[r][p] = LOAD(sums[r] + c + p * VL);     \
            for (int r = 0; r < R; r++)                                                    \
                for (int p = 0; p < (W); p++) odd[r][p] = LOAD(sums[r] + d + c + p * VL);  \
            for (int64_t j = 0; j < n; j++) {                                              \
                const STORED *value = values + pages[j] * stride + c;                      \
                int64_t end = j * PAGE + (j == n - 1 ? (last + 1) / 2 * 2 : PAGE);         \
                for (int64_t t = j * PAGE; t < end; t += 2, value += 2 * d) {              \
                    vec a[W], b[W];                                                        \
                    for (int p = 0; p < (W); p++)                                          \
                        a[p] = GET(value + p * VL), b[p] = GET(value + d + p * VL);        \
                    _Pragma("GCC unroll 8") for (int r = 0; r < R; r++) {                  \
                        vec first = splat(w[r][t]), second = splat(w[r][t + 1]);           \
                        for (int p = 0; p < (W); p++) {                                    \
                            even[r][p] = FMA(first, a[p], even[r][p]);                     \
                            odd[r][p] = FMA(second, b[p], odd[r][p]);                      \
                        }                                                                  \
                    }                                                                      \
                }                                                                          \
            }                                                                              \
            for (int r = 0; r < R; r++)                                                    \
                for (int p = 0; p < (W); p++) STORE(sums[r] + c + p * VL, even[r][p]);     \
            for (int r = 0; r < R; r++)                                                    \
                for (int p = 0; p < (W); p++) STORE(sums[r] + d + c + p * VL, odd[r][p]);  \
        }                                                                                  \
    }
typedef void (*NAME(Scores))(const STORED *, int64_t, const int32_t *, int64_t, int64_t,
                             float *const *, float *const *);
typedef void (*NAME(Sums))(const STORED *, int64_t, const int32_t *, int64_t, int64_t, int64_t,
                           float *const *, float *const *);
SCORES(1)
SCORES(2) SCORES(3) SCORES(4) SUMS(1, sums_, PV) SUMS(2, sums_, PV)
#if PV == 1
    SCORES(5) SCORES(6) SCORES(7) SCORES(8) SUMS(3, sums_, 1) SUMS(4, sums_, 1) SUMS(5, sums_, 1)
        SUMS(6, sums_, 1) SUMS(7, sums_, 1) SUMS(8, sums_, 1) SUMS(1, wide_, 2) SUMS(2, wide_, 2)
            SUMS(3, wide_, 2) SUMS(4, wide_, 2) SUMS(5, wide_, 2) SUMS(6, wide_, 2)
#define MOST 8
        static const NAME(Scores) NAME(SCORES_OF)[] = {0,
                                                       NAME(scores_1),
                                                       NAME(scores_2),
                                                       NAME(scores_3),
                                                       NAME(scores_4),
                                                       NAME(scores_5),
                                                       NAME(scores_6),
                                                       NAME(scores_7),
                                                       NAME(scores_8)};
#define MOST_SUMS 8
static const NAME(Sums) NAME(SUMS_OF)[] = {0,
                                           NAME(sums_1),
                                           NAME(sums_2),
                                           NAME(sums_3),
                                           NAME(sums_4),
                                           NAME(sums_5),
                                           NAME(sums_6),
                                           NAME(sums_7),
                                           NAME(sums_8)};
/* where two vectors of channels fit */
static const NAME(Sums) NAME(WIDE_SUMS_OF)[] = {0,
                                                NAME(wide_1),
                                                NAME(wide_2),
                                                NAME(wide_3),
                                                NAME(wide_4),
                                                NAME(wide_5),
                                                NAME(wide_6),
                                                NAME(sums_7),
                                                NAME(sums_8)};
#elif PV == 2
    SCORES(5) SCORES(6) SUMS(3, sums_, PV)
#define MOST 6
        static const NAME(Scores) NAME(SCORES_OF)[] = {0,
                                                       NAME(scores_1),
                                                       NAME(scores_2),
                                                       NAME(scores_3),
                                                       NAME(scores_4),
                                                       NAME(scores_5),
                                                       NAME(scores_6)};
#define MOST_SUMS 3
static const NAME(Sums) NAME(SUMS_OF)[] = {0, NAME(sums_1), NAME(sums_2), NAME(sums_3)};
#else
#define MOST 4
    static const NAME(Scores)
        NAME(SCORES_OF)[] = {0, NAME(scores_1), NAME(scores_2), NAME(scores_3), NAME(scores_4)};
#define MOST_SUMS 2
static const NAME(Sums) NAME(SUMS_OF)[] = {0, NAME(sums_1), NAME(sums_2)};
#endif

/* Scores of R queries against n pages of completions, whose keys stand one behind the other; of the
   last one only `last` tokens. What stands behind them in `out` is to be hidden. Four tokens at a
   time: their products in parts [4][VL / 4], which `pairs` adds up. */
#define OWN(R)                                                                                \
    static void NAME(own_##R)(const STORED *keys, int64_t stride, const int32_t *pages,       \
                              int64_t n, int64_t last, int64_t d, float *const *q,            \
                              float *const *out) {                                            \
        for (int64_t j = 0; j < n; j++) {                                                     \
            const STORED *page = keys + pages[j] * stride;                                    \
            int64_t end = j == n - 1 ? last : PAGE;                                           \
            for (int64_t t = 0; t < end; t += VL) {                                           \
                vec part[R][VL / 4];                                                          \
                for (int g = 0; g < VL / 4; g++) {                                            \
                    vec of[R][4];                                                             \
                    for (int r = 0; r < R; r++)                                               \
                        for (int u = 0; u < 4; u++) of[r][u] = (vec){0};                      \
                    const STORED *key = page + (t + 4 * g) * d;                               \
                    for (int64_t i = 0; t + 4 * g < end && i < d; i += VL) {                  \
                        vec k0 = GET(key + i), k1 = GET(key + d + i), k2 = GET(key + 2 * d + i), \
                            k3 = GET(key + 3 * d + i);                                        \
                        for (int r = 0; r < R; r++) {                                         \
                            vec x = LOAD(q[r] + i);                                           \
                            of[r][0] = FMA(x, k0, of[r][0]);                                  \
                            of[r][1] = FMA(x, k1, of[r][1]);                                  \
                            of[r][2] = FMA(x, k2, of[r][2]);                                  \
                            of[r][3] = FMA(x, k3, of[r][3]);                                  \
                        }                                                                     \
                    }                                                                         \
                    for (int r = 0; r < R; r++)                                               \
                        part[r][g] = pairs(pairs(of[r][0], of[r][1]), pairs(of[r][2], of[r][3])); \
                }                                                                             \
                for (int r = 0; r < R; r++) {                                                 \
                    for (int g = VL / 8; g >= 1; g /= 2)                                      \
                        for (int u = 0; u < g; u++)                                           \
                            part[r][u] = pairs(part[r][2 * u], part[r][2 * u + 1]);           \
                    STORE(out[r] + j * PAGE + t, part[r][0]);                                 \
                }                                                                             \
            }                                                                                 \
        }                                                                                     \
    }
OWN(1)
#if PV == 1
OWN(2) OWN(3) OWN(4)
#define MOST_OWN 4
    static const NAME(Sums) NAME(OWN_OF)[] = {0, NAME(own_1), NAME(own_2), NAME(own_3), NAME(own_4)};
#else
#define MOST_OWN 1
static const NAME(Sums) NAME(OWN_OF)[] = {0, NAME(own_1)};
#endif

/* Queries [from, to): q [.., n_heads, padded] (scaled) -> out [.., n_heads * head_dim]. `scratch`:
   see `attention_size`. What comes of a query does not depend, bit for bit, on those that it shares
   pages with. A lane is one query head of one query; those of one key head stand together, query by
   query. Several key heads of a page are read in turn, since they stand side by side. */
static void NAME(attend)(const Batch *b, const Heads *h, const STORED *K, const STORED *V, float *q,
                         int64_t from, int64_t to, float *scratch, float *out) {
    int64_t d = h->padded, size = d * PAGE, stride = h->n_kv * size, group = h->n_heads / h->n_kv,
            width = b->stride * PAGE;
    int64_t n_together = queries_together(h), n_turn = heads_in_turn(b, h),
            most_lanes = n_turn * n_together * group;
    float *scores = scratch, *sums = scores + most_lanes * width,
          *total = sums + most_lanes * 2 * d;
    for (int64_t i = from; i < to; i += n_together) {
        int64_t m = to - i < n_together ? to - i : n_together, n_lanes = m * group;
        Tile tiles[2 * BLOCK];
        int64_t n_tiles = tiles_of(b, i, i, i + m, 0, tiles) - tiles;
        for (int64_t first = 0; first < h->n_kv; first += n_turn) {
            int64_t n_here = h->n_kv - first < n_turn ? h->n_kv - first : n_turn;
            memset(sums, 0, n_here * n_lanes * 2 * d * sizeof(float));
            for (const Tile *t = tiles; t < tiles + n_tiles; t++) {
                const int32_t *pages = b->table + b->chain[i + t->row] * b->stride;
                int64_t own = b->n_prompt[i + t->row], middle = own < t->from ? t->from
                                                                : own > t->to ? t->to
                                                                              : own;
                for (int64_t head = 0; head < n_here; head++)
                    for (int64_t lane = t->row * group, end = lane + t->n * group, k; lane < end;
                         lane += k) {
                        const STORED *keys = K + (first + head) * size;
                        float *query[MOST], *at[MOST];
                        k = even_part(end - lane, MOST);
                        for (int64_t r = 0; r < k; r++) {
                            query[r] = q + ((i + (lane + r) / group - from) * h->n_heads +
                                            (first + head) * group + (lane + r) % group) *
                                               d;
                            at[r] = scores + (head * n_lanes + lane + r) * width + t->from * PAGE;
                        }
                        if (middle > t->from)
                            NAME(SCORES_OF)
                            [k](keys, stride, pages + t->from, middle - t->from, d, query, at);
                        for (int64_t r = 0; r < k; r++) at[r] += (middle - t->from) * PAGE;
                        for (int64_t r = 0, few; r < k && t->to > middle; r += few) {
                            few = even_part(k - r, MOST_OWN);
                            NAME(OWN_OF)
                            [few](keys, stride, pages + middle, t->to - middle,
                                  tokens_in(b, i + t->row, t), d, query + r, at + r);
                        }
                    }
            }
            for (int64_t head = 0; head < n_here; head++)
                for (int64_t lane = 0, of; lane < n_lanes; lane++) {
                    of = head * n_lanes + lane;
                    total[of] = weigh(b, h, i + lane / group,
                                      b->table + b->chain[i + lane / group] * b->stride,
                                      scores + of * width);
                }
            for (const Tile *t = tiles; t < tiles + n_tiles; t++) {
                const int32_t *pages = b->table + b->chain[i + t->row] * b->stride + t->from;
                for (int64_t head = 0; head < n_here; head++)
                    for (int64_t lane = t->row * group, end = lane + t->n * group, k; lane < end;
                         lane += k) {
                        float *weights[MOST_SUMS], *sum[MOST_SUMS];
                        k = even_part(end - lane, MOST_SUMS);
                        for (int64_t r = 0; r < k; r++) {
                            weights[r] =
                                scores + (head * n_lanes + lane + r) * width + t->from * PAGE;
                            sum[r] = sums + (head * n_lanes + lane + r) * 2 * d;
                        }
#if PV == 1
                        NAME(Sums) add = (d % (2 * VL) ? NAME(SUMS_OF) : NAME(WIDE_SUMS_OF))[k];
#else
                        NAME(Sums) add = NAME(SUMS_OF)[k];
#endif
                        add(V + (first + head) * size, stride, pages, t->to - t->from,
                            tokens_in(b, i + t->row, t), d, weights, sum);
                    }
            }
            for (int64_t head = 0; head < n_here; head++)
                for (int64_t lane = 0; lane < n_lanes; lane++) {
                    const float *sum = sums + (head * n_lanes + lane) * 2 * d;
                    float *to_ = out + ((i + lane / group - from) * h->n_heads +
                                        (first + head) * group + lane % group) *
                                           h->head_dim;
                    float inverse = 1.0f / total[head * n_lanes + lane];
                    for (int64_t c = 0; c < h->head_dim; c++)
                        to_[c] = (sum[c] + sum[d + c]) * inverse;
                }
        }
    }
}

static void NAME(write)(const Batch *b, const Heads *h, STORED *K, STORED *V, int64_t i,
                        int64_t head, const float *key, const float *value) {
    if (b->write_page[i] < 0) return;
    int64_t size = h->padded * PAGE, at = (b->write_page[i] * h->n_kv + head) * size,
            offset = b->write_offset[i], c = 0;
    STORED *k = K + at, *v = V + at + offset * h->padded;
    if (b->n_prompt[i] < b->n_pages[i]) { /* a page of a completion: token by token */
        k += offset * h->padded;
        for (; c + VL <= h->head_dim; c += VL)
            PUT(k + c, LOAD(key + c)), PUT(v + c, LOAD(value + c));
        for (; c < h->head_dim; c++) PUT_ONE(k + c, key[c]), PUT_ONE(v + c, value[c]);
        return;
    }
    for (; c < h->head_dim; c++) PUT_ONE(k + c * PAGE + offset, key[c]), PUT_ONE(v + c, value[c]);
}
