#include "adapter/naming_internal.h"
#include "format/names.h"

#include <string.h>

/* With three components before the parameter: "layers.0.q_proj.weight". */
#define END_COMPONENTS_MIN 4u
#define HEADS_MAX 256u /* places that a base is looked at for ends; real ones have some 50 */

size_t naming_lower_bound(const struct model *model, size_t low, size_t high, const char *name,
                          size_t bytes)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct st_tensor *tensor = model_tensor(model, model->by_name[middle]);
        const char *held = st_name(model_header(model, model->by_name[middle]), tensor);

        if (name_compare(held, tensor->name_bytes, name, bytes) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum { VISION = 1, VIDEO = 2, AUDIO = 4, TEXT = 8, TOWERS = 15, ENCODER = 16, DECODER = 32 };

static const struct {
    const char *word;
    unsigned part;
} part_words[] = {
    { "vision", VISION }, { "visual", VISION }, { "image", VISION },    { "video", VIDEO },
    { "audio", AUDIO },   { "speech", AUDIO },  { "sound", AUDIO },     { "text", TEXT },
    { "language", TEXT }, { "llm", TEXT },      { "encoder", ENCODER }, { "decoder", DECODER },
};

unsigned naming_parts(const char *name, size_t bytes)
{
    unsigned parts = 0;

    for (size_t i = 0; i < sizeof(part_words) / sizeof(part_words[0]); i++) {
        if (memmem(name, bytes, part_words[i].word, strlen(part_words[i].word)))
            parts |= part_words[i].part;
    }
    return parts;
}

bool naming_parts_exclude(unsigned left, unsigned right)
{
    bool other_coder = ((left ^ right) & (ENCODER | DECODER)) != 0;
    bool other_tower = ((left ^ right) & TOWERS) != 0;

    /* One of the two may be left unsaid, as in "encoder.layers" for "vision_model.encoder.layers".
     */
    if (other_coder && other_tower)
        return true;
    return (left & TOWERS) && (right & TOWERS) && !(left & right & TOWERS);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Where the first component that is a number begins, behind others and before others; or 0. */
static size_t head_of(const char *name, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        const char *dot = memchr(name + at, '.', bytes - at);
        size_t end = dot ? (size_t)(dot - name) : bytes;
        size_t i = at;

        while (i < end && is_digit(name[i]))
            i++;
        if (dot && at && i == end && i > at)
            return at;
        at = end + 1;
    }
    return 0;
}

/* Is one of two beginnings ("layers.", "model.layers.") the end of the other? */
static bool heads_fit(const char *left, size_t left_bytes, const char *right, size_t right_bytes)
{
    if (left_bytes < right_bytes)
        return heads_fit(right, right_bytes, left, left_bytes);
    left += left_bytes - right_bytes;
    return (left_bytes == right_bytes || left[-1] == '.') && memcmp(left, right, right_bytes) == 0;
}

static size_t count_components(const char *name, size_t bytes)
{
    size_t count = 1;

    for (size_t i = 0; i < bytes; i++)
        count += name[i] == '.';
    return count;
}

/*
 * Names that have more or fewer components before the first number, and are the same from there
 * on.  The base is looked at once for every beginning before a number, not for every tensor.
 */
size_t naming_find_ends(struct naming_found out[NAMING_FOUND_MAX], const struct model *model,
                        const char *name, size_t bytes)
{
    size_t head = head_of(name, bytes);
    size_t tail_components = head ? count_components(name + head, bytes - head) : 0;
    size_t count = 0;
    size_t looked = 0;

    for (size_t i = 0; head && i < model->tensor_count && count < NAMING_FOUND_MAX; looked++) {
        const struct st_tensor *tensor = model_tensor(model, model->by_name[i]);
        const char *held = st_name(model_header(model, model->by_name[i]), tensor);
        size_t held_head = head_of(held, tensor->name_bytes);
        size_t shorter = head < held_head ? head : held_head;
        char other[SPELLED_BYTES_MAX];
        struct model_ref ref;

        if (looked == HEADS_MAX) /* what is not looked at might be meant as well */
            return 0;
        i++;
        if (!held_head || held_head + bytes - head > sizeof(other))
            continue;
        memcpy(other, held, held_head);
        other[held_head] = ':'; /* ':' follows '9' */
        i = naming_lower_bound(model, i, model->tensor_count, other, held_head + 1);
        if (heads_fit(name, head, held, held_head) &&
            count_components(held + held_head - shorter, shorter - 1) + tail_components >=
                END_COMPONENTS_MIN &&
            naming_parts(name, head) == naming_parts(held, held_head)) {
            memcpy(other + held_head, name + head, bytes - head);
            if (model_find(model, other, held_head + bytes - head, &ref))
                out[count++] = (struct naming_found){ ref, NAMING_END };
        }
    }
    return count;
}
