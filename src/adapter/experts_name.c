#include "adapter/experts.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* How models name the layers of one expert: gate, up, down. */
static const char *const spellings[][3] = {
    { "gate_proj", "up_proj", "down_proj" },
    { "w1", "w3", "w2" },
    { "fc1", "fc3", "fc2" },
};

const char *expert_spelling(unsigned spelling, enum expert_part part)
{
    return spelling < COUNT(spellings) && part <= EXPERT_DOWN ? spellings[spelling][part] : NULL;
}

static bool read_number(const char *text, size_t bytes, uint64_t *out)
{
    if (!bytes || bytes > 9) /* more experts than any file can hold tensors of */
        return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(text[i] - '0');
    }
    return bytes == 1 || text[0] != '0';
}

static bool is_word(const char *text, size_t bytes, const char *word)
{
    return bytes == strlen(word) && memcmp(text, word, bytes) == 0;
}

/* The last component of text[0, bytes); its length is what the component has. */
static const char *last_component(const char *text, size_t bytes)
{
    const char *at = text + bytes;

    while (at > text && at[-1] != '.')
        at--;
    return at;
}

static bool read_part(const char *leaf, enum expert_part *part)
{
    for (size_t s = 0; s < COUNT(spellings); s++) {
        for (int p = 0; p < 3; p++) {
            if (strcmp(leaf, spellings[s][p]) == 0) {
                *part = (enum expert_part)p;
                return true;
            }
        }
    }
    return false;
}

bool expert_name_read(struct expert_name *out, const char *module)
{
    size_t bytes = strlen(module);
    const char *parts[3]; /* the last components, the last one first */
    size_t lengths[3];

    for (size_t i = 0; i < 3; i++) {
        parts[i] = last_component(module, bytes);
        lengths[i] = (size_t)(module + bytes - parts[i]);
        if (parts[i] == module && i < 2)
            return false;
        bytes = (size_t)(parts[i] - module) - (parts[i] > module);
    }
    if (!is_word(parts[2], lengths[2], "experts"))
        return false;
    out->experts_bytes = (size_t)(parts[2] - module) + lengths[2];
    if (read_number(parts[1], lengths[1], &out->expert) && read_part(parts[0], &out->part)) {
        out->number = parts[1];
        out->number_bytes = lengths[1];
        return true;
    }
    /* One linear layer per expert in a list: GPT-OSS where it is loaded in 4 bits. */
    if (!read_number(parts[0], lengths[0], &out->expert))
        return false;
    out->number = parts[0];
    out->number_bytes = lengths[0];
    if (is_word(parts[1], lengths[1], "gate_up_projs"))
        out->part = EXPERT_GATE_UP;
    else if (is_word(parts[1], lengths[1], "down_projs"))
        out->part = EXPERT_DOWN;
    else
        return false;
    return true;
}
