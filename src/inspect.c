/* inspect.c - what a path is: adapter, base, single file, or an output of lorafold */
#include "merge.h"

#include "format/torch_file.h"
#include "io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool holds(const char *directory, const char *name)
{
    char path[4096];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
           stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static void add_name(struct text *out, const char *name, size_t bytes)
{
    char quoted[QUOTED_BYTES];

    text_adds(out, error_quote(quoted, sizeof(quoted), name, bytes));
}

static void add_shape(struct text *out, const uint64_t *shape, size_t count)
{
    text_adds(out, "[");
    for (size_t i = 0; i < count; i++)
        text_addf(out, "%s%llu", i ? ", " : "", (unsigned long long)shape[i]);
    text_adds(out, "]");
}

static void add_tensor(struct text *out, const struct st_header *header,
                       const struct st_tensor *tensor, const char *file,
                       enum lorafold_format format)
{
    const char *name = st_name(header, tensor);

    if (format == LORAFOLD_JSON) {
        text_adds(out, "{\"type\":\"tensor\",\"name\":");
        text_add_json(out, name, tensor->name_bytes);
        text_addf(out, ",\"dtype\":\"%s\",\"shape\":", dtype_name((enum dtype)tensor->dtype));
        add_shape(out, st_shape(header, tensor), tensor->shape_count);
        text_addf(out, ",\"bytes\":%llu,\"file\":", (unsigned long long)tensor->data_bytes);
        text_add_json(out, file, strlen(file));
        text_adds(out, "}\n");
        return;
    }
    text_addf(out, "  %-6s", dtype_name((enum dtype)tensor->dtype));
    text_adds(out, " ");
    add_name(out, name, tensor->name_bytes);
    text_adds(out, " ");
    add_shape(out, st_shape(header, tensor), tensor->shape_count);
    text_adds(out, "\n");
}

/* Bytes and tensors of each dtype, largest first would be nicer than it is worth: dtype order. */
static void add_dtypes(struct text *out, const struct model *model, enum lorafold_format format)
{
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    size_t count[DTYPE_COUNT] = { 0 };
    bool first = true;

    for (size_t s = 0; s < model->shard_count; s++) {
        for (size_t t = 0; t < model->shards[s].header.tensor_count; t++) {
            const struct st_tensor *tensor = &model->shards[s].header.tensors[t];

            bytes[tensor->dtype] += tensor->data_bytes;
            count[tensor->dtype]++;
        }
    }
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (count[i] == 0)
            continue;
        if (format == LORAFOLD_JSON) {
            text_addf(out, "%s\"%s\":{\"tensors\":%zu,\"bytes\":%llu}", first ? "" : ",",
                      dtype_name((enum dtype)i), count[i], (unsigned long long)bytes[i]);
        } else {
            text_addf(out, "dtype     %s: %zu tensors, ", dtype_name((enum dtype)i), count[i]);
            text_add_bytes(out, bytes[i]);
            text_adds(out, "\n");
        }
        first = false;
    }
}

static void describe_model(struct text *out, const struct model *model, const char *kind,
                           const char *path, enum lorafold_format format, bool all_tensors)
{
    if (format == LORAFOLD_JSON) {
        text_addf(out, "{\"type\":\"%s\",\"path\":", kind);
        text_add_json(out, path, strlen(path));
        text_addf(out, ",\"shards\":%zu,\"tensors\":%zu,\"bytes\":%llu,\"dtypes\":{",
                  model->shard_count, model->tensor_count, (unsigned long long)model->data_bytes);
        add_dtypes(out, model, format);
        text_adds(out, "}}\n");
    } else {
        text_addf(out, "%-10s", kind);
        add_name(out, path, strlen(path));
        text_addf(out, ": %zu tensors in %zu %s, ", model->tensor_count, model->shard_count,
                  model->shard_count == 1 ? "file" : "shards");
        text_add_bytes(out, model->data_bytes);
        text_adds(out, "\n");
        add_dtypes(out, model, format);
        for (size_t s = 0; s < model->shard_count; s++) {
            text_adds(out, "shard     ");
            add_name(out, model->shards[s].name, strlen(model->shards[s].name));
            text_addf(out, ": %zu tensors, ", model->shards[s].header.tensor_count);
            text_add_bytes(out, model->shards[s].identity.bytes);
            text_adds(out, "\n");
        }
        for (size_t i = 0; i < model->ignored_count; i++) {
            text_adds(out, "ignored   ");
            add_name(out, model->ignored[i], strlen(model->ignored[i]));
            text_adds(out, ": not part of the model\n");
        }
    }
    for (size_t s = 0; s < model->shard_count && all_tensors; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (size_t t = 0; t < header->tensor_count; t++)
            add_tensor(out, header, &header->tensors[t], model->shards[s].name, format);
    }
}

static void describe_adapter(struct text *out, const struct adapter *adapter, const char *path,
                             enum lorafold_format format, bool all_tensors)
{
    const struct adapter_config *config = &adapter->config;
    const char *base = config->base_model ? config->base_model : "";

    if (format == LORAFOLD_JSON) {
        text_adds(out, "{\"type\":\"adapter\",\"path\":");
        text_add_json(out, path, strlen(path));
        text_adds(out, ",\"base_model\":");
        text_add_json(out, base, strlen(base));
        text_addf(out,
                  ",\"rank\":%u,\"alpha\":%.17g,\"rslora\":%s,\"modules\":%zu,\"bytes\":%llu}\n",
                  config->rank, config->alpha, config->rslora ? "true" : "false",
                  adapter->pair_count, (unsigned long long)adapter->weights_bytes);
    } else {
        text_adds(out, "adapter   ");
        add_name(out, path, strlen(path));
        text_addf(out, ": LoRA, rank %u%s, alpha %g%s%s\n", config->rank,
                  config->rank_pattern_count ? " and others" : "", config->alpha,
                  config->alpha_pattern_count ? " and others" : "",
                  config->rslora ? ", rank-stabilised" : "");
        text_adds(out, "base      ");
        add_name(out, *base ? base : "(not named)", *base ? strlen(base) : 11);
        text_addf(out, "\nmodules   %zu, ", adapter->pair_count);
        text_add_bytes(out, adapter->weights_bytes);
        text_adds(out, "\n");
        for (size_t i = 0; i < adapter->unused_count; i++) {
            text_adds(out, "unused    ");
            add_name(out, adapter->unused[i], strlen(adapter->unused[i]));
            text_adds(out, ": cannot be folded\n");
        }
    }
    for (size_t t = 0; t < adapter->header.tensor_count && all_tensors; t++)
        add_tensor(out, &adapter->header, &adapter->header.tensors[t],
                   strrchr(adapter->weights_path, '/') + 1, format);
}

static int inspect_adapter(struct text *out, const char *path, const char *directory,
                           enum lorafold_format format, bool all_tensors, struct error *err)
{
    struct adapter adapter = { 0 };

    if (adapter_open(&adapter, directory, true, NULL, err))
        return err->code;
    describe_adapter(out, &adapter, path, format, all_tensors);
    adapter_release(&adapter);
    return 0;
}

static bool is_torch_weights(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strncmp(name, "pytorch_model", strlen("pytorch_model")) == 0 && dot &&
           strcmp(dot, ".bin") == 0;
}

static int add_torch_shard(struct model *model, const char *directory, const char *name,
                           struct error *err)
{
    struct model_shard *shard = &model->shards[model->shard_count];
    struct text path = { 0 };
    uint64_t bytes;
    int status;

    text_addf(&path, "%s/%s", directory, name);
    shard->path = text_take(&path);
    shard->name = strdup(name);
    model->shard_count++;
    if (!shard->path || !shard->name)
        return error_no_memory(err, "the names of files");
    status = torch_file_read(&shard->header, shard->path, &bytes, err);
    if (status)
        return status;
    shard->identity = shard->header.identity;
    model->tensor_count += shard->header.tensor_count;
    for (size_t t = 0; t < shard->header.tensor_count; t++)
        model->data_bytes += shard->header.tensors[t].data_bytes;
    return 0;
}

/*
 * The files of torch.save() that the manifest of an output lists, as far as they are described;
 * nothing if it lists none.
 */
static int open_torch_output(struct model *out, const char *directory, struct error *err)
{
    struct output_files files = { 0 };
    struct model model = { 0 };
    struct error unused = { 0 };
    int status = 0;

    if (manifest_load(&files, directory, &unused))
        return 0; /* verify says what is wrong with it */
    if (files.count) {
        model.shards = calloc(files.count, sizeof(*model.shards));
        if (!model.shards)
            status = error_no_memory(err, "the list of files");
    }
    for (size_t i = 0; i < files.count && !status; i++)
        if (is_torch_weights(files.list[i].name))
            status = add_torch_shard(&model, directory, files.list[i].name, err);
    output_files_release(&files);
    if (status)
        model_release(&model);
    else
        *out = model;
    return status;
}

static int inspect_model(struct text *out, const char *path, const char *place,
                         enum lorafold_format format, bool all_tensors, struct error *err)
{
    struct model model = { 0 };
    struct stat st;
    const char *kind = "base";

    if (stat(place, &st) == 0 && S_ISREG(st.st_mode))
        kind = "file";
    else if (holds(place, MANIFEST_NAME))
        kind = "output";
    if (strcmp(kind, "output") == 0 && open_torch_output(&model, place, err))
        return err->code;
    if (model.shard_count == 0) {
        model_release(&model);
        if (model_open(&model, place, NULL, err))
            return err->code;
    }
    describe_model(out, &model, kind, path, format, all_tensors);
    if (strcmp(kind, "output") == 0 && format == LORAFOLD_TEXT)
        text_addf(out, "made by   lorafold; '%s' says how, 'lorafold verify' checks it\n",
                  MANIFEST_NAME);
    model_release(&model);
    return 0;
}

int lorafold_inspect(const char *path, enum lorafold_format format, bool all_tensors, char **out,
                     struct lorafold_error *err)
{
    struct text text = { 0 };
    struct source source = { 0 };
    struct error inner = { 0 };
    const char *name;
    int status;

    status = source_find(&source, NULL, path, "path", REMOTE_WEIGHTS, &inner);
    if (!status) {
        name = strrchr(source.path, '/');
        name = name ? name + 1 : source.path;
        if (holds(source.path, "adapter_config.json") || strcmp(name, "adapter_config.json") == 0 ||
            strcmp(name, "adapter_model.safetensors") == 0 ||
            strcmp(name, "adapter_model.bin") == 0)
            status = inspect_adapter(&text, path, source.path, format, all_tensors, &inner);
        else
            status = inspect_model(&text, path, source.path, format, all_tensors, &inner);
    }
    source_release(&source);
    if (!status) {
        *out = text_take(&text);
        if (!*out)
            status = error_no_memory(&inner, "the text");
    }
    text_release(&text);
    return status ? give_error(err, &inner) : 0;
}
