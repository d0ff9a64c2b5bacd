#include "format/safetensors.h"

#include "base/array.h"
#include "base/bytes.h"
#include "base/json.h"
#include "format/safetensors_layout.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    struct json_reader reader;
    struct st_header header; /* without names, which are still in `names` */
    size_t tensor_capacity;
    size_t shapes_capacity;
    struct text names;
    struct text word; /* a decoded string at hand */
    bool metadata_seen;
};

void st_header_release(struct st_header *header)
{
    free(header->tensors);
    free(header->names);
    free(header->shapes);
    free(header->metadata);
    *header = (struct st_header){ 0 };
}

static int bad_field(const struct json_token *token, const char *field, const char *expected,
                     struct error *err)
{
    char quoted[64];

    return error_set(err, ERR_FORMAT, "%s is not %s: '%s'", field, expected,
                     error_quote(quoted, sizeof(quoted), token->begin, token->bytes));
}

/* __metadata__: an object of strings, or null. */
static int read_metadata(struct parser *parser, struct error *err)
{
    struct json_token token;
    const char *begin;
    int status;

    if (parser->metadata_seen)
        return error_set(err, ERR_FORMAT, "'__metadata__' appears twice");
    parser->metadata_seen = true;
    status = json_next(&parser->reader, &token, err);
    if (status || token.kind == JSON_NULL)
        return status;
    if (token.kind != JSON_OBJECT_BEGIN)
        return bad_field(&token, "'__metadata__'", "an object", err);
    begin = token.begin;
    while (!(status = json_next(&parser->reader, &token, err)) && token.kind != JSON_OBJECT_END) {
        if (token.kind != JSON_KEY && token.kind != JSON_STRING)
            return bad_field(&token, "a value of '__metadata__'", "a string", err);
    }
    if (status)
        return status;
    parser->header.metadata_bytes = (size_t)(token.begin + token.bytes - begin);
    status = json_check(begin, parser->header.metadata_bytes, 0, err);
    if (status) {
        error_prefix(err, "'__metadata__'");
        return status;
    }
    parser->header.metadata = strndup(begin, parser->header.metadata_bytes);
    return parser->header.metadata ? 0 : error_no_memory(err, "'__metadata__'");
}

static int read_dtype(struct parser *parser, struct st_tensor *tensor, struct error *err)
{
    struct json_token token;
    enum dtype dtype;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_STRING)
        return bad_field(&token, "dtype", "a string", err);
    text_clear(&parser->word);
    json_string_decode(&token, &parser->word);
    if (parser->word.failed)
        return error_no_memory(err, "a dtype");
    if (!dtype_parse(parser->word.data, parser->word.bytes, &dtype))
        return bad_field(&token, "dtype", "one that safetensors has (BF16, F16, F32, ...)", err);
    tensor->dtype = (uint16_t)dtype;
    return 0;
}

/* Room for one more number in `shapes`, which therefore is not NULL even for a scalar. */
static int reserve_dimension(struct parser *parser, struct error *err)
{
    uint64_t *more;

    if (parser->header.shapes_count < parser->shapes_capacity)
        return 0;
    more = array_grow(parser->header.shapes, &parser->shapes_capacity, sizeof(*more));
    if (!more)
        return error_no_memory(err, "the shapes of a header");
    parser->header.shapes = more;
    return 0;
}

static int read_shape(struct parser *parser, struct st_tensor *tensor, struct error *err)
{
    struct st_header *header = &parser->header;
    struct json_token token;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_ARRAY_BEGIN)
        return bad_field(&token, "shape", "a list of whole numbers", err);
    tensor->shape_offset = header->shapes_count;
    for (;;) {
        status = reserve_dimension(parser, err);
        if (!status)
            status = json_next(&parser->reader, &token, err);
        if (status || token.kind == JSON_ARRAY_END)
            return status;
        if (!json_number_u64(&token, &header->shapes[header->shapes_count]))
            return bad_field(&token, "a dimension of shape", "a whole number below 2^64", err);
        if (tensor->shape_count == ST_RANK_MAX)
            return error_set(err, ERR_FORMAT, "shape has more than %u dimensions, the limit",
                             ST_RANK_MAX);
        header->shapes_count++;
        tensor->shape_count++;
    }
}

static int read_offsets(struct parser *parser, struct st_tensor *tensor, struct error *err)
{
    static const char *const pair = "a list of two whole numbers below 2^64";
    struct json_token token;
    uint64_t ends[2];
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_ARRAY_BEGIN)
        return bad_field(&token, "data_offsets", pair, err);
    for (int i = 0; i < 2; i++) {
        status = json_next(&parser->reader, &token, err);
        if (status)
            return status;
        if (!json_number_u64(&token, &ends[i]))
            return bad_field(&token, "data_offsets", pair, err);
    }
    status = json_next(&parser->reader, &token, err);
    if (status)
        return status;
    if (token.kind != JSON_ARRAY_END)
        return bad_field(&token, "data_offsets", pair, err);
    if (ends[1] < ends[0])
        return error_set(err, ERR_FORMAT,
                         "data_offsets end at %" PRIu64 ", before they begin at %" PRIu64, ends[1],
                         ends[0]);
    tensor->data_offset = ends[0];
    tensor->data_bytes = ends[1] - ends[0];
    return 0;
}

/* The members of one tensor's object; fields that we do not know are skipped. */
static int read_fields(struct parser *parser, struct st_tensor *tensor, struct error *err)
{
    static const char *const names[] = { "dtype", "shape", "data_offsets" };
    static int (*const readers[])(struct parser *, struct st_tensor *,
                                  struct error *) = { read_dtype, read_shape, read_offsets };
    struct json_token token;
    unsigned seen = 0;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_OBJECT_BEGIN)
        return bad_field(&token, "the entry", "an object", err);
    while (!(status = json_next(&parser->reader, &token, err)) && token.kind != JSON_OBJECT_END) {
        size_t field = 0;

        while (field < 3 && !json_string_is(&token, names[field]))
            field++;
        if (field == 3) {
            status = json_next(&parser->reader, &token, err);
            if (!status)
                status = json_skip(&parser->reader, &token, err);
        } else if (seen & 1u << field) {
            status = error_set(err, ERR_FORMAT, "%s appears twice", names[field]);
        } else {
            seen |= 1u << field;
            status = readers[field](parser, tensor, err);
        }
        if (status)
            return status;
    }
    for (size_t field = 0; field < 3 && !status; field++) {
        if (!(seen & 1u << field))
            status = error_set(err, ERR_FORMAT, "%s is missing", names[field]);
    }
    return status;
}

/* Product of the shape and its bytes against the range of the data, multiplied as tensor.rs does.
 */
static int check_size(struct st_header *header, struct st_tensor *tensor, struct error *err)
{
    const uint64_t *shape = header->shapes + tensor->shape_offset;
    enum dtype dtype = (enum dtype)tensor->dtype;
    uint64_t elements = 1;
    uint64_t bits;

    for (size_t i = 0; i < tensor->shape_count; i++) {
        if (!mul_u64(elements, shape[i], &elements))
            return error_set(err, ERR_FORMAT, "the product of its shape is 2^64 or more");
    }
    if (!mul_u64(elements, dtype_bits(dtype), &bits))
        return error_set(err, ERR_FORMAT, "%" PRIu64 " elements of %s are 2^64 bits or more",
                         elements, dtype_name(dtype));
    if (bits % 8)
        return error_set(err, ERR_FORMAT, "%" PRIu64 " elements of %s are not whole bytes",
                         elements, dtype_name(dtype));
    if (bits / 8 != tensor->data_bytes)
        return error_set(err, ERR_FORMAT,
                         "its shape of %s needs %" PRIu64 " bytes, but data_offsets span %" PRIu64,
                         dtype_name(dtype), bits / 8, tensor->data_bytes);
    tensor->element_count = elements;
    return 0;
}

static int read_tensor(struct parser *parser, const struct json_token *key, struct error *err)
{
    struct st_header *header = &parser->header;
    struct st_tensor tensor = { .name_offset = parser->names.bytes };
    char quoted[QUOTED_BYTES];
    size_t name_bytes;
    int status;

    json_string_decode(key, &parser->names);
    name_bytes = parser->names.bytes - tensor.name_offset;
    text_add(&parser->names, "", 1);
    if (parser->names.failed)
        return error_no_memory(err, "the names of a header");
    if (name_bytes > ST_NAME_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "a tensor name of %zu bytes, at most %u are accepted",
                         name_bytes, ST_NAME_BYTES_MAX);
    tensor.name_bytes = (uint32_t)name_bytes;
    if (header->tensor_count == parser->tensor_capacity) {
        struct st_tensor *more = array_grow(header->tensors, &parser->tensor_capacity,
                                            sizeof(*more));

        if (!more)
            return error_no_memory(err, "the tensors of a header");
        header->tensors = more;
    }
    if (memchr(parser->names.data + tensor.name_offset, '\0', name_bytes))
        status = error_set(err, ERR_FORMAT, "the name contains NUL");
    else
        status = read_fields(parser, &tensor, err);
    if (!status)
        status = check_size(header, &tensor, err);
    if (status) {
        error_quote(quoted, sizeof(quoted), parser->names.data + tensor.name_offset, name_bytes);
        error_prefix(err, "tensor '%s'", quoted);
        return status;
    }
    header->tensors[header->tensor_count++] = tensor;
    return 0;
}

static int read_all(struct parser *parser, struct error *err)
{
    struct json_token token;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_OBJECT_BEGIN)
        return bad_field(&token, "the header", "a JSON object", err);
    while (!(status = json_next(&parser->reader, &token, err)) && token.kind != JSON_OBJECT_END) {
        if (json_string_is(&token, "__metadata__"))
            status = read_metadata(parser, err);
        else
            status = read_tensor(parser, &token, err);
        if (status)
            return status;
    }
    return status ? status : json_next(&parser->reader, &token, err);
}

int st_header_parse(struct st_header *out, const char *json, size_t header_bytes,
                    uint64_t data_bytes, struct error *err)
{
    struct parser parser = { 0 };
    int status;

    if (header_bytes > ST_HEADER_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "header length %zu is not in 2..%" PRIu64, header_bytes,
                         ST_HEADER_BYTES_MAX);
    json_reader_init(&parser.reader, json, header_bytes, 0);
    status = read_all(&parser, err);
    if (!status) {
        parser.header.names_bytes = parser.names.bytes;
        parser.header.names = text_take(&parser.names);
        if (!parser.header.names)
            status = error_no_memory(err, "the names of a header");
    }
    if (!status)
        status = st_layout_check(&parser.header, data_bytes, err);
    text_release(&parser.names);
    text_release(&parser.word);
    if (status) {
        st_header_release(&parser.header);
        return status;
    }
    parser.header.data_start = ST_PREFIX_BYTES + header_bytes;
    parser.header.data_bytes = data_bytes;
    *out = parser.header;
    return 0;
}
