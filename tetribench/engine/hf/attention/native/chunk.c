/* Attention of a chunk of one sequence's queries over the keys and values before and in it, which lie in blocks.
 *
 * A tile of queries at a time: their scores with all keys they see, then weights, then the sum of values, so that both
 * large parts are matrix products with their results in registers. */

#include "paged.h"

#ifdef __AVX512F__
#define VECTORS 2 /* QUERIES times as many registers hold results, and there are 32 */
#else
#define VECTORS 1
#endif
#define QUERIES 8
#define KEYS (VECTORS * LANES)

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* One head's keys as [keys / KEYS, size, KEYS], so that one vector load takes the same number of neighbouring keys, and
 * its values as [keys, size]: among those of other heads they would share a part of the cache only. */
static void bring(const float *keys, const float *values, const int32_t *table, int64_t num_keys, float *turned,
                  float *gathered, const struct shape *s)
{
    const int64_t stride = s->kv_heads * s->size;
    for (int64_t first = 0; first < num_keys; first += KEYS, turned += KEYS * s->size)
        for (int64_t lane = 0; lane < KEYS; lane++) {
            const int64_t i = smaller(first + lane, num_keys - 1); /* what lies beyond is given no weight */
            const int64_t at = table[i / s->block_size] * s->block_stride + i % s->block_size * stride;
            for (int64_t d = 0; d < s->size; d++)
                turned[d * KEYS + lane] = keys[at + d];
            memcpy(gathered + i * s->size, values + at, s->size * sizeof(float));
        }
}

/* Scores of `rows` queries with the first `num_keys` keys, rounded up to KEYS. `rows` is a constant where inlined. */
static inline void score(const float *query, int64_t query_stride, const float *turned, int64_t num_keys, float *scores,
                         int64_t scores_stride, int rows, int64_t size, float scaling)
{
    for (int64_t first = 0; first < num_keys; first += KEYS, turned += KEYS * size) {
        lanes sums[QUERIES][VECTORS] = {0};
        for (int64_t d = 0; d < size; d++)
            for (int row = 0; row < rows; row++)
                for (int part = 0; part < VECTORS; part++)
                    sums[row][part] += query[row * query_stride + d] * load(turned + d * KEYS + part * LANES);
        for (int row = 0; row < rows; row++)
            for (int part = 0; part < VECTORS; part++)
                store(scores + row * scores_stride + first + part * LANES, sums[row][part] * scaling);
    }
}

/* The sums of values by the weights of `rows` queries, times each query's share, in `vectors` vectors of each. `rows`
 * and `vectors` are constants where inlined. */
static inline void add(const float *weights, int64_t weights_stride, const float *values, int64_t num_keys,
                       int64_t size, const float *shares, float *out, int64_t out_stride, int rows, int vectors)
{
    lanes sums[QUERIES][VECTORS] = {0};
    for (int64_t i = 0; i < num_keys; i++, values += size)
        for (int row = 0; row < rows; row++)
            for (int part = 0; part < vectors; part++)
                sums[row][part] += weights[row * weights_stride + i] * load(values + part * LANES);
    for (int row = 0; row < rows; row++)
        for (int part = 0; part < vectors; part++)
            store(out + row * out_stride + part * LANES, sums[row][part] * shares[row]);
}

/* Queries `row` to `row + rows` of one head. Each sees `context` keys, those of the queries before it and its own. */
static inline void attend(const float *query, const float *turned, const float *gathered, int64_t context,
                          int64_t row, float *out, float *scores, int rows, const struct shape *s, float scaling)
{
    const int64_t row_size = s->heads * s->size, most = context + row + rows;
    const int64_t stride = s->most_keys + LANES; /* a power of two would have rows in each other's way in the cache */
    query += row * s->query_row, out += row * row_size;
    score(query, s->query_row, turned, most, scores, stride, rows, s->size, scaling);
    float shares[QUERIES];
    for (int i = 0; i < rows; i++) {
        float *of_row = scores + i * stride;
        const int64_t seen = context + row + i + 1;
        shares[i] = weigh(of_row, seen);
        for (int64_t key = (seen + LANES - 1) / LANES * LANES; key < most; key++)
            of_row[key] = 0;
    }
    int64_t d = 0;
    for (; d + VECTORS * LANES <= s->size; d += VECTORS * LANES)
        add(scores, stride, gathered + d, most, s->size, shares, out + d, row_size, rows, VECTORS);
    for (; d < s->size; d += LANES)
        add(scores, stride, gathered + d, most, s->size, shares, out + d, row_size, rows, 1);
}

static void attend_all(const float *query, const float *keys, const float *values, const int32_t *table,
                       int64_t context, int64_t rows, float *out, float *turned, float *gathered, float *scores,
                       const struct shape *s, float scaling)
{
    const int64_t group = s->heads / s->kv_heads;
    for (int64_t kv_head = 0; kv_head < s->kv_heads; kv_head++, keys += s->size, values += s->size) {
        bring(keys, values, table, context + rows, turned, gathered, s);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
            const float *of_head = query + head * s->query_head;
            float *to_head = out + head * s->size;
            int64_t row = 0;
            for (; row + QUERIES <= rows; row += QUERIES)
                attend(of_head, turned, gathered, context, row, to_head, scores, QUERIES, s, scaling);
            for (; row < rows; row++)
                attend(of_head, turned, gathered, context, row, to_head, scores, 1, s, scaling);
        }
    }
}

/* `count` sequences, of which rows `row_starts[i]` to `row_starts[i + 1]` are the last of its `num_keys[i]` tokens.
 * `turned`, `gathered` and `scores` are scratch memory: most_keys * size floats each of the first two, 8 * (most_keys +
 * 16) of the last. Returns 0, or 1 where a sequence's keys lie elsewhere. */
int paged_chunks(const float *query, const float *keys, const float *values, const int32_t *block_table,
                 const int32_t *num_keys, const int32_t *row_starts, float *out, float *turned, float *gathered,
                 float *scores, const struct shape *shape, int64_t count, float scaling)
{
    for (int64_t i = 0; i < count; i++, block_table += shape->table_width) {
        const int64_t start = row_starts[i], rows = row_starts[i + 1] - start;
        if (!rows)
            continue;
        if (rows > num_keys[i] || !is_within(block_table, num_keys[i], shape))
            return 1;
        attend_all(query + start * shape->query_row, keys, values, block_table, num_keys[i] - rows, rows,
                   out + start * shape->heads * shape->size, turned, gathered, scores, shape, scaling);
    }
    return 0;
}
