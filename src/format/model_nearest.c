#include "base/bytes.h"
#include "format/model.h"

#include <string.h>

/* Names differ by more than this only when they are not the same thing written otherwise. */
#define DISTANCE_MAX 24u

/* Where two names still differ over more bytes than this, they are not compared. */
#define DIFFERENCE_BYTES_MAX 256u

struct candidate {
    struct model_ref ref;
    unsigned distance;
    bool same_length;
};

/*
 * Levenshtein distance, or limit + 1 if it is larger.  Only the diagonal band that a distance
 * within the limit can use is computed.
 */
static unsigned banded_distance(const char *x, size_t x_bytes, const char *y, size_t y_bytes,
                                unsigned limit)
{
    unsigned row[DIFFERENCE_BYTES_MAX + 2];
    unsigned above_limit = limit + 1;

    for (size_t j = 0; j <= y_bytes; j++)
        row[j] = j <= limit ? (unsigned)j : above_limit;
    for (size_t i = 1; i <= x_bytes; i++) {
        size_t first = i > limit ? i - limit : 1;
        size_t last = min_u64(y_bytes, i + limit);
        unsigned diagonal = row[first - 1];
        unsigned least = above_limit;

        row[first - 1] = first == 1 && i <= limit ? (unsigned)i : above_limit;
        if (row[first - 1] < least)
            least = row[first - 1];
        for (size_t j = first; j <= last; j++) {
            unsigned value = diagonal + (x[i - 1] != y[j - 1]);

            diagonal = row[j];
            if (j < i + limit && diagonal + 1 < value) /* the last cell has none above it */
                value = diagonal + 1;
            if (row[j - 1] + 1 < value)
                value = row[j - 1] + 1;
            row[j] = value < above_limit ? value : above_limit;
            if (row[j] < least)
                least = row[j];
        }
        if (least == above_limit)
            return above_limit;
    }
    return row[y_bytes];
}

static unsigned name_distance(const char *x, size_t x_bytes, const char *y, size_t y_bytes,
                              unsigned limit)
{
    while (x_bytes && y_bytes && x[0] == y[0]) {
        x++, x_bytes--;
        y++, y_bytes--;
    }
    while (x_bytes && y_bytes && x[x_bytes - 1] == y[y_bytes - 1]) {
        x_bytes--;
        y_bytes--;
    }
    if (max_u64(x_bytes, y_bytes) - min_u64(x_bytes, y_bytes) > limit ||
        max_u64(x_bytes, y_bytes) > DIFFERENCE_BYTES_MAX)
        return limit + 1;
    return banded_distance(x, x_bytes, y, y_bytes, limit);
}

static bool is_nearer(const struct candidate *x, const struct candidate *y)
{
    return x->distance != y->distance ? x->distance < y->distance
                                      : x->same_length && !y->same_length;
}

size_t model_nearest(const struct model *model, const char *name, struct model_ref *out,
                     size_t count)
{
    struct candidate best[MODEL_NEAREST_MAX];
    size_t wanted = (size_t)min_u64(count, MODEL_NEAREST_MAX);
    size_t name_bytes = strlen(name);
    size_t found = 0;
    /* More than half of a short name replaced is another name. */
    unsigned limit = (unsigned)min_u64(DISTANCE_MAX, name_bytes / 2 + 1);

    for (size_t i = 0; wanted && i < model->tensor_count; i++) {
        const struct st_tensor *tensor = model_tensor(model, model->by_name[i]);
        const struct st_header *header = model_header(model, model->by_name[i]);
        struct candidate candidate = { .ref = model->by_name[i],
                                       .same_length = tensor->name_bytes == name_bytes };
        size_t place;

        candidate.distance = name_distance(name, name_bytes, st_name(header, tensor),
                                           tensor->name_bytes, limit);
        if (candidate.distance > limit ||
            (found == wanted && !is_nearer(&candidate, &best[wanted - 1])))
            continue;
        place = found < wanted ? found++ : wanted - 1;
        while (place && is_nearer(&candidate, &best[place - 1])) {
            best[place] = best[place - 1];
            place--;
        }
        best[place] = candidate;
        if (found == wanted)
            limit = best[wanted - 1].distance;
    }
    for (size_t i = 0; i < found; i++)
        out[i] = best[i].ref;
    return found;
}
