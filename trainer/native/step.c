/* The decode step of every model: reads one token of each of n sequences and may choose the next ones.

   A model is a list of operations on floats. Each sequence has a row of memory, in which operations find their inputs
   by offsets; a transformer also has buffers of keys and values. The caller checks all sizes and allocates all memory.

   This file is compiled once per LEVEL of the CPU. Results are equal, bit for bit, in all builds and for any number of
   threads and rows: each output of a product adds in the order of its inputs, each time rounding once, a sum over a row
   has 16 lanes whatever the width of a vector, the compiler contracts nothing, and exp, tanh and erf are written out. */

#include <sched.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef LEVEL
#define LEVEL 0
#endif
#define JOINED(a, b) a##b
#define NAMED(a, b) JOINED(a, b)
#define EXPORTED __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

#if LEVEL == 2
#define LANES 16 /* floats of a vector */
#elif LEVEL == 1
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL 64 /* most outputs of a product whose weights lie side by side */
#define PART 32  /* fewest outputs of a product; bf16 weights of its halves lie in pairs */
#define GROUP (PART / LANES) /* vectors of a part */
#define SPINS 4000

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef double doubles __attribute__((vector_size(8 * LANES)));
typedef int64_t long_bits __attribute__((vector_size(8 * LANES)));

enum kind { EMBED, PRODUCT, LSTM, GRU, TANH, LAYER_NORM, RMS_NORM, GATE, ATTEND };
enum activation { NONE, GELU, GELU_TANH, RELU, SILU, TANH_ACTIVATION };

struct operation {
    int32_t kind, activation, is_bf16, adds; /* adds: to the numbers at the output */
    int64_t input, other, output;            /* offsets in a row of memory; an output of -1: the logits */
    int64_t size, outputs;                   /* numbers of the input and of the output */
    int64_t heads, groups, head_size, width; /* of attention; width: head_size rounded up to 16 */
    int64_t layer;
    const void *weights, *more; /* of ATTEND: cosines and sines, if positions are rotary */
    const float *bias;
    float epsilon, scale;
};

struct task {
    const struct operation *operations;
    float *memory, *keys, *values, *logits; /* keys (layer, sequence, group, room / PANEL, head_size, PANEL),
                                               values (layer, sequence, group, room, width),
                                               logits (sequence, logits_floats) */
    int64_t *lengths;                       /* tokens read of each sequence */
    const int64_t *rows;                    /* the n sequences */
    int64_t *ids;                           /* (reads + steps, n): the ids to read first, then those chosen */
    const double *draws;                    /* (n, steps) */
    const double *temperatures;             /* (n) */
    const uint8_t *const *barred;           /* (n), each (vocabulary) */
    double *scratch;                        /* (threads, scratch_doubles) */
    int32_t *arrived;                       /* two numbers for the barrier, 0 at first */
    int64_t n_operations, row_floats, n, sequences, room, vocabulary, logits_floats, steps, end_id, scratch_doubles;
    int64_t written; /* steps that chose a token */
    int32_t threads, reads;
};

/* ---- functions of one number, which the compiler turns into functions of vectors */

INLINE float as_float(uint32_t x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}

INLINE uint32_t as_bits(float x) {
    uint32_t y;
    memcpy(&y, &x, 4);
    return y;
}

/* exp(x) for x up to 88; smaller than the smallest normal number, it is that. After Cephes. */
INLINE float exponential(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x; /* NaN stays NaN in both */
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the low bits */
    float shifted = x * 1.44269504f + shift;
    float n = shifted - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    return p * as_float((as_bits(shifted) << 23) + 0x3f800000u);
}

/* A quotient of polynomials, to some units in the last place (of Eigen's `ptanh`). */
INLINE float hyperbolic_tangent(float x) {
    x = x < -7.998811722f ? -7.998811722f : x; /* NaN stays NaN */
    x = x > 7.998811722f ? 7.998811722f : x;
    float z = x * x;
    float p = -2.76076847742355e-16f;
    p = p * z + 2.00018790482477e-13f;
    p = p * z - 8.60467152213735e-11f;
    p = p * z + 5.12229709037114e-08f;
    p = p * z + 1.48572235717979e-05f;
    p = p * z + 6.37261928875436e-04f;
    p = p * z + 4.89352455891786e-03f;
    float q = 1.19825839466702e-06f;
    q = q * z + 1.18534705686654e-04f;
    q = q * z + 2.26843463243900e-03f;
    q = q * z + 4.89352518554385e-03f;
    return x * p / q;
}

INLINE float sigmoid(float x) { return 0.5f * hyperbolic_tangent(0.5f * x) + 0.5f; }

/* Abramowitz and Stegun 7.1.26, to 1.5e-7. */
INLINE float error_function(float x) {
    float size = as_float(as_bits(x) & 0x7fffffffu);
    float t = 1.0f / (1.0f + 0.3275911f * size);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float y = 1.0f - p * t * exponential(-size * size);
    return as_float(as_bits(y) ^ (as_bits(x) & 0x80000000u));
}

INLINE float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + hyperbolic_tangent(0.79788456f * (x + 0.044715f * x * x * x)));
}

/* exp(x) for x <= 0, to about one unit in the last place; 0 below -708 */
INLINE double exponential_of_double(double x) {
    double low = x < -708.0 ? -708.0 : x;
    const double shift = 6755399441055744.0; /* 1.5 * 2^52 */
    double shifted = low * 1.4426950408889634 + shift;
    double n = shifted - shift;
    double r = (low - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = (p * (r * r) + r) + 1.0;
    uint64_t exponent;
    memcpy(&exponent, &shifted, 8);
    exponent = (exponent << 52) + 0x3ff0000000000000u;
    double power;
    memcpy(&power, &exponent, 8);
    return x < -708.0 ? 0.0 : p * power;
}

static void activate(float *x, int64_t n, int32_t activation) {
    switch (activation) {
    case GELU:
        for (int64_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1.0f + error_function(x[i] * 0.70710678f));
        break;
    case GELU_TANH:
        for (int64_t i = 0; i < n; i++) x[i] = gelu_tanh(x[i]);
        break;
    case RELU:
        for (int64_t i = 0; i < n; i++) x[i] = x[i] < 0.0f ? 0.0f : x[i];
        break;
    case SILU:
        for (int64_t i = 0; i < n; i++) x[i] = x[i] * sigmoid(x[i]);
        break;
    case TANH_ACTIVATION:
        for (int64_t i = 0; i < n; i++) x[i] = hyperbolic_tangent(x[i]);
        break;
    }
}

/* ---- products */

/* a * b + c, rounded once. Without an instruction for it, the product and the sum are those of double precision; the
   sum is rounded to odd, so that rounding it again does not err (Boldo and Melquiond 2008). */
INLINE vector multiply_add(vector a, vector b, vector c) {
#if LEVEL == 2
    return (vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LEVEL == 1
    return (vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (vector)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    doubles product = __builtin_convertvector(a, doubles) * __builtin_convertvector(b, doubles);
    doubles addend = __builtin_convertvector(c, doubles), sum = product + addend, back = sum - product;
    doubles error = (product - (sum - back)) + (addend - back);
    long_bits is_inexact = (error > 0.0) | (error < 0.0), is_beyond = ((long_bits)error ^ (long_bits)sum) < 0;
    long_bits odd = ((long_bits)sum + (is_inexact & is_beyond)) | (is_inexact & 1);
    return __builtin_convertvector((doubles)odd, vector);
#endif
}

INLINE vector spread(float x) { return x - (vector){0}; }

/* Weights of so many vectors of outputs. In bf16, 32 bits have the weights of two outputs that are 16 apart. */
INLINE void load_weights(vector *weights, const void *panel, int64_t place, int vectors, int is_bf16) {
    if (!is_bf16) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) weights[v] = *(const vector *)((const float *)panel + place + v * LANES);
        return;
    }
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
        int pair = v / GROUP * GROUP + v % (GROUP / 2) * 2, is_high = v % GROUP >= GROUP / 2;
        bits both = *(const bits *)((const uint16_t *)panel + place + pair * LANES);
        if (is_high) weights[v] = (vector)(both & 0xffff0000u);
        else weights[v] = (vector)(both << 16);
    }
}

/* The outputs of so many rows by so many vectors of a panel; both numbers are constants where this is inlined. */
INLINE void block(const struct operation *op, const void *panel, int64_t panel_width, int64_t first, float *const *inputs,
                  float *const *outputs, const float *bias, int rows, int vectors, int is_bf16) {
    vector sums[4][8];
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) sums[row][v] = (vector){0};
    int64_t place = first, size = op->size;
    for (int64_t k = 0; k < size; k++, place += panel_width) {
        vector weights[8];
        load_weights(weights, panel, place, vectors, is_bf16);
#pragma GCC unroll 4
        for (int row = 0; row < rows; row++) {
            vector x = spread(inputs[row][k]);
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sums[row][v] = multiply_add(weights[v], x, sums[row][v]);
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            float *output = outputs[row] + first + v * LANES;
            vector sum = sums[row][v];
            if (bias) sum = sum + *(const vector *)(bias + first + v * LANES);
            if (op->adds) sum = *(vector *)output + sum;
            *(vector *)output = sum;
        }
}

/* Outputs of a panel for some rows: at most so many vectors at once as there are registers for their sums. */
#define ROWS_OF_PANEL(ROWS, MOST)                                                                             \
    static void NAMED(panel_, ROWS)(const struct operation *op, const void *panel, int64_t width, int64_t first, \
                                    int64_t end, float *const *inputs, float *const *outputs, const float *bias) { \
        while (first < end) {                                                                                 \
            int64_t left = (end - first) / LANES;                                                             \
            int vectors = MOST <= GROUP || left >= MOST ? MOST : GROUP;                                       \
            if (vectors == MOST && op->is_bf16) block(op, panel, width, first, inputs, outputs, bias, ROWS, MOST, 1); \
            else if (vectors == MOST) block(op, panel, width, first, inputs, outputs, bias, ROWS, MOST, 0);   \
            else if (op->is_bf16) block(op, panel, width, first, inputs, outputs, bias, ROWS, GROUP, 1);      \
            else block(op, panel, width, first, inputs, outputs, bias, ROWS, GROUP, 0);                       \
            first += vectors * LANES;                                                                         \
        }                                                                                                     \
    }

#if LEVEL == 2
#define BF16_ROWS 4
ROWS_OF_PANEL(1, 4)
ROWS_OF_PANEL(2, 4)
ROWS_OF_PANEL(4, 4)
#elif LEVEL == 1
#define BF16_ROWS 2 /* for more there are too few registers */
ROWS_OF_PANEL(1, 8)
ROWS_OF_PANEL(2, 4)
ROWS_OF_PANEL(4, 2)
#else
#define BF16_ROWS 1
ROWS_OF_PANEL(1, 8)
ROWS_OF_PANEL(2, 4)
ROWS_OF_PANEL(4, 2)
#endif

INLINE float *row_of(const struct task *task, int64_t i) { return task->memory + task->rows[i] * task->row_floats; }

INLINE float *output_of(const struct task *task, const struct operation *op, int64_t i) {
    return op->output < 0 ? task->logits + task->rows[i] * task->logits_floats : row_of(task, i) + op->output;
}

/* Weights are panels of PANEL outputs, the last one narrower: (panel, input, output of the panel). */
static void product(const struct task *task, const struct operation *op, int64_t begin, int64_t end) {
    int64_t number_bytes = op->is_bf16 ? 2 : 4;
    for (int64_t first = begin / PANEL * PANEL; first < end; first += PANEL) {
        int64_t left = op->outputs - first, width = left < PANEL ? left : PANEL;
        int64_t from = begin > first ? begin - first : 0, to = end - first < width ? end - first : width;
        const void *panel = (const char *)op->weights + first * op->size * number_bytes;
        const float *bias = op->bias ? op->bias + first : 0;
        for (int64_t i = 0; i < task->n;) {
            float *inputs[4], *outputs[4];
            int64_t left_rows = task->n - i, most = op->is_bf16 ? BF16_ROWS : 4;
            int64_t rows = left_rows >= 4 && most >= 4 ? 4 : left_rows >= 2 && most >= 2 ? 2 : 1;
            for (int64_t r = 0; r < rows; r++) {
                inputs[r] = row_of(task, i + r) + op->input;
                outputs[r] = output_of(task, op, i + r) + first;
            }
            if (rows == 4) panel_4(op, panel, width, from, to, inputs, outputs, bias);
            else if (rows == 2) panel_2(op, panel, width, from, to, inputs, outputs, bias);
            else panel_1(op, panel, width, from, to, inputs, outputs, bias);
            if (op->activation)
                for (int64_t r = 0; r < rows; r++) activate(outputs[r] + from, to - from, op->activation);
            i += rows;
        }
    }
}

/* ---- cells, norms, gates: each thread has a range of the numbers, or rows of its own */

static void lstm(float *gates, float *output, float *cell, int64_t size, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        float in = sigmoid(gates[i]), forget = sigmoid(gates[size + i]);
        float new = hyperbolic_tangent(gates[2 * size + i]), out = sigmoid(gates[3 * size + i]);
        float next = forget * cell[i] + in * new;
        cell[i] = next;
        output[i] = out * hyperbolic_tangent(next);
    }
}

static void gru(const float *of_input, const float *of_output, float *output, int64_t size, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        float reset = sigmoid(of_input[i] + of_output[i]);
        float update = sigmoid(of_input[size + i] + of_output[size + i]);
        float new = hyperbolic_tangent(of_input[2 * size + i] + reset * of_output[2 * size + i]);
        output[i] = (output[i] - new) * update + new;
    }
}

/* The sum of x[i], or of (x[i] - middle)^2, in 16 lanes. */
INLINE float sum_of(const float *x, int64_t n, float middle, int squares) {
    float lanes[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int lane = 0; lane < 16; lane++) {
            float y = x[i + lane] - middle;
            lanes[lane] += squares ? y * y : y;
        }
    for (int lane = 0; lane < n - i; lane++) {
        float y = x[i + lane] - middle;
        lanes[lane] += squares ? y * y : y;
    }
    for (int half = 8; half; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    return lanes[0];
}

INLINE float higher(float x, float y) { return x > y ? x : y; }

/* The highest of the numbers, in 16 lanes; NaN is no number. */
INLINE float highest_of(const float *x, int64_t n) {
    float lanes[16];
    for (int lane = 0; lane < 16; lane++) lanes[lane] = -__builtin_inff();
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int lane = 0; lane < 16; lane++) lanes[lane] = higher(x[i + lane], lanes[lane]);
    for (int lane = 0; lane < n - i; lane++) lanes[lane] = higher(x[i + lane], lanes[lane]);
    for (int half = 8; half; half /= 2)
        for (int lane = 0; lane < half; lane++) lanes[lane] = higher(lanes[lane + half], lanes[lane]);
    return lanes[0];
}

static void norm(const struct operation *op, const float *x, float *output) {
    int64_t n = op->size;
    int has_mean = op->kind == LAYER_NORM;
    float mean = has_mean ? sum_of(x, n, 0.0f, 0) / (float)n : 0.0f;
    float factor = 1.0f / __builtin_sqrtf(sum_of(x, n, mean, 1) / (float)n + op->epsilon);
    const float *weight = op->weights, *bias = op->bias;
    if (bias)
        for (int64_t i = 0; i < n; i++) output[i] = (x[i] - mean) * factor * weight[i] + bias[i];
    else
        for (int64_t i = 0; i < n; i++) output[i] = (x[i] - mean) * factor * weight[i];
}

/* ---- attention of one sequence and one group of heads, which have the same keys and values */

static void rotate(float *x, const float *cosines, const float *sines, int64_t size) {
    int64_t half = size / 2;
    for (int64_t i = 0; i < half; i++) {
        float first = x[i], second = x[half + i];
        x[i] = first * cosines[i] - second * sines[i];
        x[half + i] = second * cosines[half + i] + first * sines[half + i];
    }
}

/* The scores of a block of PANEL tokens: queries (head_size) times keys (head_size, PANEL). */
INLINE void score_block(const float *query, const float *keys, float *scores, int64_t size, float scale) {
    vector sums[PANEL / LANES];
#pragma GCC unroll 16
    for (int v = 0; v < PANEL / LANES; v++) sums[v] = (vector){0};
    for (int64_t d = 0; d < size; d++, keys += PANEL) {
        vector of_query = spread(query[d]);
#pragma GCC unroll 16
        for (int v = 0; v < PANEL / LANES; v++)
            sums[v] = multiply_add(*(const vector *)(keys + v * LANES), of_query, sums[v]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < PANEL / LANES; v++) *(vector *)(scores + v * LANES) = sums[v] * scale;
}

/* So many vectors of the sum over n tokens of a head's values (n, width), each by its share. */
INLINE void add_values(const float *values, const float *shares, float *output, int64_t n, int64_t width, float total,
                       int vectors) {
    vector sums[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sums[v] = (vector){0};
    for (int64_t p = 0; p < n; p++, values += width)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[v] = multiply_add(*(const vector *)(values + v * LANES), spread(shares[p]), sums[v]);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) *(vector *)(output + v * LANES) = sums[v] / total;
}

static void attend(const struct task *task, const struct operation *op, int64_t i, int64_t group, int64_t read,
                   float *scores) {
    int64_t position = task->lengths[task->rows[i]] + read, room = task->room, width = op->width, size = op->head_size;
    int64_t place = (op->layer * task->sequences + task->rows[i]) * op->groups + group, shared = op->heads / op->groups;
    float *keys = task->keys + place * size * room, *values = task->values + place * room * width;
    float *row = row_of(task, i), *queries = row + op->input + group * shared * width;
    float *key = row + op->input + (op->heads + group) * width, *value = key + op->groups * width;
    const float *cosines = op->weights, *sines = op->more;
    if (cosines) {
        rotate(key, cosines + position * size, sines + position * size, size);
        for (int64_t head = 0; head < shared; head++)
            rotate(queries + head * width, cosines + position * size, sines + position * size, size);
    }
    float *of_block = keys + position / PANEL * PANEL * size + position % PANEL;
    for (int64_t d = 0; d < size; d++) of_block[d * PANEL] = key[d];
    memcpy(values + position * width, value, width * sizeof(float));
    int64_t n = position + 1;
    for (int64_t head = 0; head < shared; head++) {
        float *output = row + op->output + (group * shared + head) * width;
        for (int64_t first = 0; first < n; first += PANEL)
            score_block(queries + head * width, keys + first * size, scores + first, size, op->scale);
        float highest = highest_of(scores, n);
        for (int64_t p = 0; p < n; p++) scores[p] = exponential(scores[p] - highest);
        float total = sum_of(scores, n, 0.0f, 0);
        int64_t first = 0;
        for (; first + 4 * LANES <= width; first += 4 * LANES)
            add_values(values + first, scores, output + first, n, width, total, 4);
        for (; first < width; first += LANES) add_values(values + first, scores, output + first, n, width, total, 1);
    }
}

/* ---- the choice of a token, in double precision, as trainer.inference.sampling has it */

INLINE float allowed(const float *logits, const uint8_t *barred, int64_t i) {
    return barred[i] ? -__builtin_inff() : logits[i];
}

/* The first of the highest logits that are not barred; the first NaN is higher than all numbers. */
static int64_t likeliest(const float *logits, const uint8_t *barred, int64_t n) {
    vector highest = spread(-__builtin_inff());
    bits places = {0}, are_nan = {0};
    int64_t whole = n / LANES * LANES, best = 0;
    for (int64_t i = 0; i < whole; i += LANES) {
        bits is_barred = (bits)(__builtin_convertvector(*(const bytes *)(barred + i), bits) != 0);
        bits x = ((bits)spread(-__builtin_inff()) & is_barred) | (*(const bits *)(logits + i) & ~is_barred);
        bits is_higher = (bits)((vector)x > highest);
        highest = (vector)((x & is_higher) | ((bits)highest & ~is_higher));
        places = ((bits){0} + (uint32_t)i & is_higher) | (places & ~is_higher);
        are_nan |= (bits)((vector)x != (vector)x);
    }
    float high = -__builtin_inff();
    int has_nan = 0;
    for (int lane = 0; lane < LANES; lane++) {
        int64_t place = places[lane] + (uint32_t)lane;
        if (highest[lane] > high || (highest[lane] == high && place < best)) high = highest[lane], best = place;
        has_nan |= are_nan[lane] != 0;
    }
    for (int64_t i = whole; i < n; i++) {
        float x = allowed(logits, barred, i);
        if (x > high) high = x, best = i;
        has_nan |= x != x;
    }
    for (int64_t i = 0; i < n && has_nan; i++)
        if (allowed(logits, barred, i) != allowed(logits, barred, i)) return i;
    return high == -__builtin_inff() ? 0 : best;
}

static int64_t choose(const float *logits, const uint8_t *barred, double temperature, double draw, int64_t n,
                      double *weights) {
    int64_t best = likeliest(logits, barred, n);
    if (temperature == 0.0) return best;
    double highest = allowed(logits, barred, best), divisor = temperature < 1e-6 ? 1e-6 : temperature, total = 0.0;
    if (!(highest - highest == 0.0)) return n - 1;
    for (int64_t i = 0; i < n; i++)
        weights[i] = exponential_of_double(((double)allowed(logits, barred, i) - highest) / divisor);
    for (int64_t i = 0; i < n; i++) weights[i] = total += weights[i];
    int64_t low = 0, high = n - 1; /* the first whose sum is above the bound, or the last one */
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (weights[middle] > draw * total) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* ---- a step */

/* Wait until all threads are here; beside other programs the one that waits soon gives its core away. */
static void wait(const struct task *task) {
    if (task->threads == 1) return;
    int32_t *arrived = task->arrived, round = __atomic_load_n(arrived + 1, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(arrived, 1, __ATOMIC_ACQ_REL) == task->threads) {
        __atomic_store_n(arrived, 0, __ATOMIC_RELAXED);
        __atomic_add_fetch(arrived + 1, 1, __ATOMIC_RELEASE);
        return;
    }
    for (int64_t spins = 0; __atomic_load_n(arrived + 1, __ATOMIC_ACQUIRE) == round; spins++) {
#if defined(__x86_64__)
        __asm__ volatile("pause");
#endif
        if (spins >= SPINS) sched_yield();
    }
}

static void operate(const struct task *task, const struct operation *op, const int64_t *ids, int64_t read, int thread) {
    int threads = task->threads;
    int64_t parts = (op->outputs + PART - 1) / PART; /* of a row, divided among the threads */
    int64_t begin = parts * thread / threads * PART, end = parts * (thread + 1) / threads * PART;
    end = end < op->outputs ? end : op->outputs;
    if (op->kind == PRODUCT) {
        product(task, op, begin, end);
        return;
    }
    if (op->kind == ATTEND) {
        float *scores = (float *)(task->scratch + thread * task->scratch_doubles);
        for (int64_t unit = thread; unit < task->n * op->groups; unit += threads)
            attend(task, op, unit / op->groups, unit % op->groups, read, scores);
        return;
    }
    for (int64_t i = 0; i < task->n; i++) {
        float *row = row_of(task, i), *output = row + op->output;
        const float *of_id, *of_position;
        int is_mine = i % threads == thread;
        switch (op->kind) {
        case EMBED:
            of_id = (const float *)op->weights + ids[i] * op->outputs;
            memcpy(output + begin, of_id + begin, (end - begin) * sizeof(float));
            if (!op->more) break;
            of_position = (const float *)op->more + (task->lengths[task->rows[i]] + read) * op->outputs;
            for (int64_t j = begin; j < end; j++) output[j] += of_position[j];
            break;
        case LSTM:
            lstm(row + op->input, output, row + op->other, op->outputs, begin, end);
            break;
        case GRU:
            gru(row + op->input, row + op->other, output, op->outputs, begin, end);
            break;
        case TANH:
            for (int64_t j = begin; j < end; j++) output[j] = hyperbolic_tangent(row[op->input + j]);
            break;
        case LAYER_NORM:
        case RMS_NORM:
            if (is_mine) norm(op, row + op->input, output);
            break;
        case GATE:
            activate(row + op->input + begin, end - begin, op->activation);
            for (int64_t j = begin; j < end; j++) output[j] = row[op->input + j] * row[op->other + j];
            break;
        }
    }
}

INLINE int overlap(int64_t first, int64_t n, int64_t other, int64_t m) { return first < other + m && other < first + n; }

/* True if no thread needs numbers that another one has in the earlier of two operations: they have the same parts. */
static int are_apart(const struct operation *op, const struct operation *next) {
    int64_t read = op->kind == PRODUCT ? op->size : 0;
    if ((op->kind != PRODUCT && op->kind != EMBED) || overlap(op->input, read, next->output, next->outputs)) return 0;
    if (next->kind == GATE) return next->input == op->output || next->other == op->output;
    return next->kind == PRODUCT && !overlap(op->output, op->outputs, next->input, next->size);
}

/* True if a thread must wait before the next operation, after those that have begun since the last wait. */
static int must_wait(const struct operation *begun, const struct operation *next) {
    for (; begun < next; begun++)
        if (!are_apart(begun, next)) return 1;
    return 0;
}

/* Read a token of each sequence, after those that this call has read. */
static void read_tokens(const struct task *task, const int64_t *ids, int64_t read, int needs_logits, int thread) {
    const struct operation *op = task->operations, *end = op + task->n_operations, *begun = op;
    for (; op < end; op++) {
        if (op->output < 0 && !needs_logits) continue;
        if (task->threads > 1 && must_wait(begun, op)) {
            wait(task);
            begun = op;
        }
        operate(task, op, ids, read, thread);
    }
    wait(task);
}

/* Read the first ids, then choose up to `steps` tokens of each sequence, and read all but the last ones. Ends after the
   step in which a sequence chose `end_id`. Each thread makes this call, with a number of its own. */
EXPORTED void NAMED(step_run_, LEVEL)(struct task *task, int thread) {
    int64_t read = 0;
    for (; read < task->reads; read++)
        read_tokens(task, task->ids + read * task->n, read, read + 1 == task->reads, thread);
    for (int64_t step = 0; step < task->steps; step++) {
        int64_t *chosen = task->ids + (task->reads + step) * task->n;
        if (step) read_tokens(task, chosen - task->n, read++, 1, thread);
        for (int64_t i = thread; i < task->n; i += task->threads)
            chosen[i] = choose(task->logits + task->rows[i] * task->logits_floats, task->barred[i], task->temperatures[i],
                               task->draws[i * task->steps + step], task->vocabulary,
                               task->scratch + thread * task->scratch_doubles);
        wait(task);
        int has_ended = 0;
        for (int64_t i = 0; i < task->n; i++) has_ended |= chosen[i] == task->end_id;
        if (thread == 0) task->written = step + 1;
        if (has_ended) break;
    }
    if (thread == 0)
        for (int64_t i = 0; i < task->n; i++) task->lengths[task->rows[i]] += read;
}

#if LEVEL == 0
/* The highest level that this CPU and its operating system have. */
EXPORTED int step_level(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
#define CPUID(leaf) __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(0))
    CPUID(0);
    if (a < 7) return 0;
    CPUID(1);
    unsigned has_osxsave_avx_fma_f16c_movbe = 1u << 27 | 1u << 28 | 1u << 12 | 1u << 29 | 1u << 22;
    if ((c & has_osxsave_avx_fma_f16c_movbe) != has_osxsave_avx_fma_f16c_movbe) return 0;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    CPUID(7);
    unsigned bmi_avx2 = 1u << 3 | 1u << 5 | 1u << 8, avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
    if ((low & 6) != 6 || (b & bmi_avx2) != bmi_avx2) return 0;
    return (low & 0xe0) == 0xe0 && (b & avx512) == avx512 ? 2 : 1;
#else
    return 0;
#endif
}
#endif
