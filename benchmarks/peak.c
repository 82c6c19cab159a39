/* The processor's peak in products of one kind: independent sums that stay in registers, on all
   threads. Compiled and called by peak.py. */

#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#define SUMS 12 /* enough for two units with a latency of four cycles, and fewer than registers */
#define MAX_THREADS 256

enum { FP32, BF16, INT16, INT8 };

typedef struct {
    int kind;
    int64_t n;
    float result;
    double seconds;
} Work;

/* The thread's own, so other work on the machine counts little. */
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* n rounds of SUMS products with the same two vectors. The sums' total is returned so that nothing
 * is left out. */
#define LOOP(VECTOR, ZERO, STEP)                                                      \
    VECTOR sum[SUMS];                                                                 \
    for (int i = 0; i < SUMS; i++) sum[i] = ZERO;                                     \
    for (int64_t round = 0; round < work->n; round++)                                 \
        _Pragma("GCC unroll 12") for (int i = 0; i < SUMS; i++) sum[i] = STEP(sum[i]); \
    enum { NUMBERS = sizeof(VECTOR) / 4 * SUMS };                                     \
    float out[NUMBERS];                                                               \
    __builtin_memcpy(out, sum, sizeof sum);                                           \
    for (int i = 0; i < NUMBERS; i++) work->result += out[i];

static void loop(Work *work) {
#if defined(__AVX512F__)
    volatile float one = 1.0f, small = 1e-9f;
    __m512 a = _mm512_set1_ps(one), b = _mm512_set1_ps(small);
    if (work->kind == FP32) {
#define STEP_FP32(s) _mm512_fmadd_ps(a, b, s)
        LOOP(__m512, _mm512_setzero_ps(), STEP_FP32)
    }
#if defined(__AVX512BF16__)
    if (work->kind == BF16) {
        __m512bh x = (__m512bh)_mm512_set1_epi32((int)(0x3f803f80 + (one != 1.0f)));
#define STEP_BF16(s) _mm512_dpbf16_ps(s, x, x)
        LOOP(__m512, _mm512_setzero_ps(), STEP_BF16)
    }
#endif
#if defined(__AVX512VNNI__)
    __m512i y = _mm512_set1_epi32((int)one);
    if (work->kind == INT8) {
#define STEP_INT8(s) _mm512_dpbusd_epi32(s, y, y)
        LOOP(__m512i, _mm512_setzero_si512(), STEP_INT8)
    }
    if (work->kind == INT16) {
#define STEP_INT16(s) _mm512_dpwssd_epi32(s, y, y)
        LOOP(__m512i, _mm512_setzero_si512(), STEP_INT16)
    }
#endif
#elif defined(__FMA__)
    volatile float one = 1.0f, small = 1e-9f;
    __m256 a = _mm256_set1_ps(one), b = _mm256_set1_ps(small);
#define STEP_FP32(s) _mm256_fmadd_ps(a, b, s)
    LOOP(__m256, _mm256_setzero_ps(), STEP_FP32)
#endif
    (void)work;
}

static void *timed(void *argument) {
    Work *work = argument;
    double start = seconds();
    loop(work);
    work->seconds = seconds() - start;
    return 0;
}

/* Operations (a product and a sum are two) of one round; 0: this processor has no such products. */
int64_t peak_operations(int64_t kind) {
#if defined(__AVX512F__)
    if (kind == FP32) return 2 * 16 * SUMS;
#if defined(__AVX512BF16__)
    if (kind == BF16) return 2 * 32 * SUMS;
#endif
#if defined(__AVX512VNNI__)
    if (kind == INT16) return 2 * 32 * SUMS;
    if (kind == INT8) return 2 * 64 * SUMS;
#endif
#elif defined(__FMA__)
    if (kind == FP32) return 2 * 8 * SUMS;
#endif
    (void)kind;
    return 0;
}

/* n rounds on each thread; returns the rounds per second of all threads together, or -1 where a
 * thread could not be started. */
double peak_rounds(int64_t kind, int64_t n, int64_t n_threads) {
    Work works[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    int started = 0, wanted = n_threads < MAX_THREADS ? (int)n_threads : MAX_THREADS;
    for (int t = 0; t < wanted; t++) works[t] = (Work){(int)kind, n, 0, 0};
    while (started < wanted && pthread_create(&threads[started], 0, timed, &works[started]) == 0)
        started++;
    double rate = 0;
    for (int t = 0; t < started; t++) {
        pthread_join(threads[t], 0);
        rate += (double)n / works[t].seconds;
    }
    return started < (int)n_threads ? -1 : rate;
}
