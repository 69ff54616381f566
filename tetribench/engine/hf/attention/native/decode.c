/* Attention of one query for each sequence over keys and values that lie in blocks.
 *
 * Keys and values are read once and from where they are: gathering them first costs more than attending to them. */

#include <stdint.h>
#include <string.h>

#define LANES 16 /* the widest vector register there is; the compiler splits it where they are narrower */
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t int_lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline lanes load(const float *from) { return *(const lanes *)from; }

static inline void store(float *to, lanes value) { *(lanes *)to = value; }

static inline float total(lanes value)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int lane = 0; lane < LANES; lane++)
        sum += value[lane];
    return sum;
}

/* exp(x) for x <= 0 to about 1e-7 of its value: two to a whole number, by the exponent's bits, times two to a fraction
 * in [-1/2, 1/2], by its Taylor series. Below -87 it stays at exp(-87), which is nothing beside the largest weight, 1. */
static inline lanes exponential(lanes x)
{
    const lanes zero = {0};
    const int_lanes is_tiny = x < -87.0f;
    x = (lanes)(((int_lanes)x & ~is_tiny) | ((int_lanes)(zero - 87.0f) & is_tiny));
    const lanes two_to = x * 1.4426950408889634f;
    const int_lanes whole = __builtin_convertvector(two_to - 0.5f, int_lanes); /* nearest, as it truncates upwards */
    const lanes y = (two_to - __builtin_convertvector(whole, lanes)) * 0.6931471805599453f;
    lanes series = zero + 1.0f / 5040;
    series = series * y + 1.0f / 720;
    series = series * y + 1.0f / 120;
    series = series * y + 1.0f / 24;
    series = series * y + 1.0f / 6;
    series = series * y + 0.5f;
    series = series * y + 1.0f;
    series = series * y + 1.0f;
    return series * (lanes)((whole + 127) << 23);
}

/* Scores to weights, in place, up to a whole number of vectors; returns one over their sum. */
static float weigh(float *scores, int64_t count)
{
    for (int64_t i = count; i % LANES; i++)
        scores[i] = -1e30f;
    lanes most = load(scores);
    for (int64_t i = LANES; i < count; i += LANES) {
        const lanes next = load(scores + i);
        const int_lanes is_more = next > most;
        most = (lanes)(((int_lanes)next & is_more) | ((int_lanes)most & ~is_more));
    }
    float largest = most[0];
    for (int lane = 1; lane < LANES; lane++)
        largest = most[lane] > largest ? most[lane] : largest;
    lanes sum = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        const lanes weights = exponential(load(scores + i) - largest);
        store(scores + i, weights);
        sum += weights;
    }
    return 1 / total(sum);
}

/* scores[i] = query . keys[i] * scaling for `count` keys that are `stride` apart. `size` is a constant where inlined. */
static inline void score(const float *query, const float *keys, int64_t stride, int count, int size, float scaling,
                         float *scores)
{
    for (int i = 0; i < count; i++, keys += stride) {
        lanes sum = {0};
        for (int d = 0; d < size; d += LANES)
            sum += load(query + d) * load(keys + d);
        scores[i] = total(sum) * scaling;
    }
}

/* out += sum of weights[i] * values[i], a few vectors of the output at a time so that they stay in registers. */
static inline void add(const float *weights, const float *values, int64_t stride, int count, int size, float *out)
{
    int d = 0;
    for (; d + 4 * LANES <= size; d += 4 * LANES) {
        lanes a = load(out + d), b = load(out + d + LANES), c = load(out + d + 2 * LANES), e = load(out + d + 3 * LANES);
        const float *value = values + d;
        for (int i = 0; i < count; i++, value += stride) {
            a += weights[i] * load(value);
            b += weights[i] * load(value + LANES);
            c += weights[i] * load(value + 2 * LANES);
            e += weights[i] * load(value + 3 * LANES);
        }
        store(out + d, a), store(out + d + LANES, b), store(out + d + 2 * LANES, c), store(out + d + 3 * LANES, e);
    }
    for (; d < size; d += LANES) {
        lanes a = load(out + d);
        for (int i = 0; i < count; i++)
            a += weights[i] * load(values + i * stride + d);
        store(out + d, a);
    }
}

/* Ask for one of `parts` parts of a block, so that it is in the second cache when its turn comes. Asked for at once, or
 * for the first cache, blocks come no sooner than without. */
static inline void fetch(const float *block, int64_t size, int64_t part, int64_t parts)
{
    const float *end = block + size * (part + 1) / parts;
    for (const float *line = block + size * part / parts; line < end; line += LANES)
        __builtin_prefetch(line, 0, 2);
}

struct shape {
    int64_t heads, kv_heads, size, block_size, block_stride, table_width, scores_width;
};

static inline void attend(const float *query, const float *keys, const float *values, const int32_t *table,
                          int64_t num_keys, float *out, float *scores, const struct shape *s, int size, float scaling)
{
    const int64_t group = s->heads / s->kv_heads, stride = s->kv_heads * size;
    const int64_t blocks = (num_keys + s->block_size - 1) / s->block_size;
    memset(out, 0, s->heads * size * sizeof(float));
    for (int64_t i = 0; i < blocks; i++) {
        const int64_t first = i * s->block_size;
        const int count = num_keys - first < s->block_size ? num_keys - first : s->block_size;
        const float *block = keys + table[i] * s->block_stride;
        const float *next = i + 1 < blocks ? keys + table[i + 1] * s->block_stride : values + table[0] * s->block_stride;
        for (int64_t head = 0; head < s->heads; head++) {
            fetch(next, s->block_size * stride, head, s->heads);
            score(query + head * size, block + head / group * size, stride, count, size, scaling,
                  scores + head * s->scores_width + first);
        }
    }
    for (int64_t head = 0; head < s->heads; head++) {
        float *of_head = scores + head * s->scores_width;
        const float share = weigh(of_head, num_keys);
        for (int64_t i = 0; i < num_keys; i++)
            of_head[i] *= share;
    }
    for (int64_t i = 0; i < blocks; i++) {
        const int64_t first = i * s->block_size;
        const int count = num_keys - first < s->block_size ? num_keys - first : s->block_size;
        const float *block = values + table[i] * s->block_stride;
        const float *next = values + table[i + 1 < blocks ? i + 1 : i] * s->block_stride;
        for (int64_t head = 0; head < s->heads; head++) {
            fetch(next, s->block_size * stride, head, s->heads);
            add(scores + head * s->scores_width + first, block + head / group * size, stride, count, size,
                out + head * size);
        }
    }
}

/* `query` and `out` are [rows, heads, size], contiguous; `keys` and `values` begin with block 0, and a block,
 * [block_size, kv_heads, size], is `block_stride` floats from the next; `block_table` is [rows, table_width]. `scores` is
 * scratch memory, [heads, scores_width], whose width is a multiple of 16. `size` is one as well. */
void paged_decode(const float *query, const float *keys, const float *values, const int32_t *block_table,
                  const int32_t *num_keys, float *out, float *scores, const struct shape *shape, int64_t rows,
                  float scaling)
{
    const int64_t row_size = shape->heads * shape->size;
    for (int64_t row = 0; row < rows; row++, query += row_size, out += row_size, block_table += shape->table_width) {
        if (shape->size == 64)
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, 64, scaling);
        else if (shape->size == 128)
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, 128, scaling);
        else
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, shape->size, scaling);
    }
}
