/* Attention of one query for each sequence over keys and values that lie in blocks.
 *
 * Keys and values are read once and from where they are: gathering them first costs more than attending to them. */

#include "paged.h"

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
            score(query + head * s->query_head, block + head / group * size, stride, count, size, scaling,
                  scores + head * s->most_keys + first);
        }
    }
    for (int64_t head = 0; head < s->heads; head++) {
        float *of_head = scores + head * s->most_keys;
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
            add(scores + head * s->most_keys + first, block + head / group * size, stride, count, size,
                out + head * size);
        }
    }
}

/* One query for each of `rows` sequences, the last of its `num_keys` tokens. `scores` is scratch memory, [heads,
 * most_keys]. Returns 0, or 1 where a sequence's keys lie elsewhere. */
int paged_decode(const float *query, const float *keys, const float *values, const int32_t *block_table,
                 const int32_t *num_keys, float *out, float *scores, const struct shape *shape, int64_t rows,
                 float scaling)
{
    const int64_t row_size = shape->heads * shape->size;
    for (int64_t row = 0; row < rows;
         row++, query += shape->query_row, out += row_size, block_table += shape->table_width) {
        if (!is_within(block_table, num_keys[row], shape))
            return 1;
        if (shape->size == 64)
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, 64, scaling);
        else if (shape->size == 128)
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, 128, scaling);
        else
            attend(query, keys, values, block_table, num_keys[row], out, scores, shape, shape->size, scaling);
    }
    return 0;
}
