/* card.c - README.md of the output: what it is made of and how */
#include "merge.h"

#include "io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CARD_BYTES_MAX (4 * MIB)

/* Fields of the base's card that go with the weights. */
static const char *const kept_fields[] = { "license:", "license_name:", "license_link:" };

static bool is_kept(const char *line)
{
    bool kept = false;

    for (size_t i = 0; i < sizeof(kept_fields) / sizeof(kept_fields[0]); i++)
        kept |= strncmp(line, kept_fields[i], strlen(kept_fields[i])) == 0;
    return kept;
}

/* Such fields of a YAML block, with the lines that go on with a value: of a list, or indented. */
static void add_kept(const char *block, struct text *out)
{
    bool kept = false;

    for (const char *line = block; *line && strncmp(line, "---", 3) != 0;) {
        size_t bytes = strcspn(line, "\r\n");

        kept = *line == ' ' || *line == '-' ? kept : is_kept(line);
        if (kept) {
            text_add(out, line, bytes);
            text_adds(out, "\n");
        }
        line += bytes;
        line += *line == '\r';
        line += *line == '\n';
    }
}

/* Copy them out of the head of a README.md. */
static void add_license(const char *directory, struct text *out)
{
    struct error ignored = { 0 };
    char *card = NULL;
    size_t bytes = 0;
    char path[4096];

    if (!directory ||
        snprintf(path, sizeof(path), "%s/README.md", directory) >= (int)sizeof(path) ||
        file_read_all(&card, &bytes, path, CARD_BYTES_MAX, &ignored))
        return; /* a model without a card is common */
    if (strncmp(card, "---\n", 4) == 0 || strncmp(card, "---\r\n", 5) == 0)
        add_kept(card + strcspn(card, "\n") + 1, out);
    free(card);
}

const char *public_base_name(const struct lorafold_merge *merge)
{
    const char *named = merge->adapters[0].config.base_model;

    if (!merge->base->source.from_hub && named && named[0] != '/' && named[0] != '.' &&
        hub_is_repo_name(named))
        return named;
    return merge->base->source.name;
}

static void add_adapters(const struct lorafold_merge *merge, struct text *out)
{
    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];
        char name[QUOTED_BYTES];

        error_quote(name, sizeof(name), adapter->name, strlen(adapter->name));
        text_addf(out, "- `%s`: rank %u, alpha %g%s, weight %g, %zu modules\n", name,
                  adapter->config.rank, adapter->config.alpha,
                  adapter->config.rslora ? " (rank-stabilised)" : "",
                  merge->plan_adapters[i].weight, adapter->pair_count);
    }
}

static void add_verify(struct text *out)
{
    text_addf(out,
              ", by lorafold %s.\n`%s` holds digests of every file: check them with "
              "`lorafold verify`.\n",
              LORAFOLD_VERSION, MANIFEST_NAME);
}

static void write_model_card(const struct lorafold_merge *merge, struct text *out)
{
    const char *base = public_base_name(merge);

    text_adds(out, "---\n");
    text_adds(out, "base_model: ");
    text_add_json(out, base, strlen(base));
    text_adds(out, "\nbase_model_relation: finetune\nlibrary_name: transformers\n");
    add_license(merge->base->model.directory, out);
    text_adds(out, "tags:\n- lora\n- lorafold\n---\n\n# ");
    text_adds(out, base);
    text_adds(out, " with LoRA folded in\n\nThis is the base model [");
    text_addf(out, "%s] with ", base);
    text_adds(out, merge->adapter_count == 1 ? "this LoRA adapter" : "these LoRA adapters");
    text_adds(out, " folded into its weights; it needs no adapter to run.\n\n");
    add_adapters(merge, out);
    text_addf(out,
              "\n%zu tensors were folded, %zu replaced, %zu converted, %zu copied byte for byte",
              merge->plan.folded, merge->plan.replaced, merge->plan.converted, merge->plan.copied);
    add_verify(out);
}

/* The licence is what the adapter's author says, else the base's. */
static void add_adapter_license(const struct lorafold_merge *merge, struct text *out)
{
    size_t before = out->bytes;

    add_license(merge->adapters[0].directory, out);
    if (out->bytes == before)
        add_license(merge->base->model.directory, out);
}

static void write_adapter_card(const struct lorafold_merge *merge, struct text *out)
{
    const char *base = public_base_name(merge);

    text_adds(out, "---\n");
    if (base) {
        text_adds(out, "base_model: ");
        text_add_json(out, base, strlen(base));
        text_adds(out, "\nbase_model_relation: adapter\n");
    }
    text_adds(out, "library_name: peft\n");
    add_adapter_license(merge, out);
    text_adds(out, "tags:\n- lora\n- lorafold\n---\n\n# LoRA adapter");
    if (base)
        text_addf(out, " for %s", base);
    text_adds(out, "\n\nLoad it onto its base model with `peft.PeftModel.from_pretrained()`.\n\n");
    add_adapters(merge, out);
    text_addf(out, "\n%zu tensors were converted, %zu copied byte for byte", merge->plan.converted,
              merge->plan.copied);
    add_verify(out);
}

void card_write(const struct lorafold_merge *merge, struct text *out)
{
    if (writes_adapter(merge))
        write_adapter_card(merge, out);
    else
        write_model_card(merge, out);
}
