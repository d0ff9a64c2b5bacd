#include "format/config_text.h"

#include <string.h>

static void add_list(struct text *out, const char *const *names, size_t count)
{
    if (count == 0)
        text_adds(out, "null");
    for (size_t i = 0; i < count; i++) {
        text_adds(out, i == 0 ? "[\n      " : ",\n      ");
        text_add_json(out, names[i], strlen(names[i]));
    }
    if (count)
        text_adds(out, "\n    ]");
}

void config_bnb_text(struct text *out, const struct config_bnb *bnb)
{
    text_addf(out,
              "{\n"
              "    \"_load_in_4bit\": true,\n"
              "    \"_load_in_8bit\": false,\n"
              "    \"bnb_4bit_compute_dtype\": \"%s\",\n"
              "    \"bnb_4bit_quant_storage\": \"uint8\",\n"
              "    \"bnb_4bit_quant_type\": \"%s\",\n"
              "    \"bnb_4bit_use_double_quant\": %s,\n"
              "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"
              "    \"llm_int8_has_fp16_weight\": false,\n"
              "    \"llm_int8_skip_modules\": ",
              bnb->compute_dtype, bnb->quant_type, bnb->nested ? "true" : "false");
    add_list(out, bnb->skip_modules, bnb->skip_count);
    text_adds(out, ",\n"
                   "    \"llm_int8_threshold\": 6.0,\n"
                   "    \"load_in_4bit\": true,\n"
                   "    \"load_in_8bit\": false,\n"
                   "    \"quant_method\": \"bitsandbytes\"\n"
                   "  }");
}
