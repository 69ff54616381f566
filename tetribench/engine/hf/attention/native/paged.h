/* What the kernels share: how queries, keys and values lie, sums of vectors, and scores as weights. */

#pragma once

#include <string.h>

#include "lanes.h"

static inline float total(lanes value)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int lane = 0; lane < LANES; lane++)
        sum += value[lane];
    return sum;
}

/* exp(x) for x <= 0 to about 1e-7 of its value: two to a whole number, by the exponent's bits, times two to a fraction
 * in [-1/2, 1/2], by its Taylor series. Below -87 it stays at exp(-87), nothing beside the largest weight, 1. */
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

/* Keys and values are [num_blocks, block_size, kv_heads, size], with `block_stride` floats from a block to the next. A
 * query is `size` floats, and `query_row` and `query_head` are from one row and from one head to the next; outputs are
 * contiguous, [rows, heads, size]. A sequence has `table_width` entries in the block table. No context has more than
 * `most_keys` keys, which is a multiple of 32; `size` is one of LANES. */
struct shape {
    int64_t heads, kv_heads, size, num_blocks, block_size, block_stride, query_row, query_head, table_width, most_keys;
};

/* Whether a sequence's keys lie in blocks that there are, and fit the scratch memory. */
static inline int is_within(const int32_t *table, int64_t num_keys, const struct shape *s)
{
    if (num_keys < 1 || num_keys > s->most_keys || num_keys > s->table_width * s->block_size)
        return 0;
    for (int64_t i = 0; i * s->block_size < num_keys; i++)
        if (table[i] < 0 || table[i] >= s->num_blocks)
            return 0;
    return 1;
}
