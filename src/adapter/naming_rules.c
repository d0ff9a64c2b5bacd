#include "adapter/naming_rules.h"

/*
 * The pure renamings of transformers (conversion_mapping.py, and _checkpoint_conversion_mapping
 * before 5.4).  A renaming that also permutes or transposes (wq and wk of Mistral's own files)
 * must not be here.  A component is renamed once: no rule applies to what another one made.
 */
const struct naming_rule naming_rules[] = {
    /* Language models inside others: llava, paligemma, gemma3, mistral3, internvl, mllama, ... */
    { "^language_model.model", "^model.language_model" },
    { "^language_model.model", "^language_model" },
    { "^language_model.lm_head", "^lm_head" },
    { "^model.language_model.lm_head", "^lm_head" },
    { "^model.language_model.model", "^model.language_model" },
    { "^language_model.model.model", "^model.language_model" },
    { "^model", "^model.language_model" },        /* qwen2_vl, qwen2_5_vl, paddleocr_vl */
    { "^language_model.model", "^model" },        /* an adapter of the text model alone */
    { "^text_model.model", "^model.text_model" }, /* emu3 */
    { "^text_model.model", "^text_model" },
    { "^text_model.lm_head", "^lm_head" },
    { "^model.llm", "^model.language_model" }, /* inkling */
    { "^model.llm", "^model" },
    { "^model.llm.unembed", "^lm_head" },
    { "^vlm.model", "^vlm" },                                   /* colqwen2 */
    { "^paligemma_with_expert.paligemma.model", "^model.vlm" }, /* pi0 */
    { "^paligemma_with_expert.gemma_expert.model", "^model.dit" },

    /* Heads and bodies of text models */
    { "^embed_out", "^lm_head" },                        /* gpt_neox */
    { "^backbone", "^model" },                           /* nemotron_h */
    { "^model.word_embeddings", "^model.embed_tokens" }, /* bailing_hybrid */
    { "^embed", "^embed_tokens" },                       /* deepseek_v4 */
    { "^head", "^lm_head" },
    { "^ultrabert", "^model" },

    /* Towers and projectors beside the language model */
    { "^vision_tower", "^model.vision_tower" },
    { "^multi_modal_projector", "^model.multi_modal_projector" },
    { "^visual", "^model.visual" },
    { "^audio_tower", "^model.audio_tower" },
    { "^image_newline", "^model.image_newline" },
    { "^vision_model", "^model.vision_model" },
    { "^vision_model", "^model.vision_tower" }, /* qianfan_ocr, ernie4_5_vl_moe */
    { "^model.vision_model", "^model.vision_tower" },
    { "^image_tower", "^model.image_tower" },
    { "^video_tower", "^model.video_tower" },
    { "^vision_embed_tokens", "^model.vision_embed_tokens" },
    { "^vqmodel", "^model.vqmodel" },
    { "^projector", "^model.projector" },
    { "^encoder", "^model.encoder" }, /* granite_speech */
    { "^acoustic_tokenizer_encoder", "^model.acoustic_tokenizer_encoder" },
    { "^semantic_tokenizer_encoder", "^model.semantic_tokenizer_encoder" },
    { "^mlp_AR", "^model.projector" },                             /* paddleocr_vl */
    { "^model.vision_projector", "^model.projector" },             /* hyperclovax_vision_v2 */
    { "^model.projector.layers", "^model.multi_modal_projector" }, /* deepseek_ocr2 */
    { "^vit_large_projector", "^model.multi_modal_projector" },    /* step3p7 */
    { "^vit", "^model.vision_tower" },                             /* hunyuan_vl */
    { "^model.vit", "^model.vision_tower" },
    { "^model.visual", "^model.vision_tower" }, /* inkling */
    { "^model.audio", "^model.audio_tower" },
    { "^sound_encoder.encoder", "^audio_tower" }, /* nemotron omni */
    { "^sound_projection.norm", "^embed_audio.layer_norm" },
    { "^sound_projection.linear1", "^embed_audio.linear_1" },
    { "^sound_projection.linear2", "^embed_audio.linear_2" },
    { "^mlp1.0", "^multi_modal_projector.layer_norm" },
    { "^mlp1.1", "^multi_modal_projector.linear_1" },
    { "^mlp1.3", "^multi_modal_projector.linear_2" },
    { "^patch_merge_mlp.linear_1", "^multi_modal_projector.merge_linear_1" }, /* minimax_m3_vl */
    { "^patch_merge_mlp.linear_2", "^multi_modal_projector.merge_linear_2" },
    { "vision_embedder", "embed_vision" }, /* gemma4 */
    { "embed_vision.embedding_projection",
      "embed_vision.multimodal_embedder.embedding_projection" },

    /* CLIP and SigLIP lost a level in 5.x, alone and as a tower. */
    { "^vision_tower.vision_model", "^model.vision_tower" },
    { "^image_tower.vision_model", "^model.image_tower" },
    { "^video_tower.vision_model", "^model.video_tower" },
    { "vision_tower.vision_model", "vision_tower" },
    { "vision_model.vision_model", "vision_model" },
    { "vision_encoder.vision_model", "vision_encoder" },
    { "image_encoder.vision_model", "image_encoder" },
    { "image_tower.vision_model", "image_tower" },
    { "video_tower.vision_model", "video_tower" },
    { "text_encoder.text_model", "text_encoder" },
    { "text_model.text_model", "text_model" },
    { "^vision_model.embeddings", "^embeddings" },
    { "^vision_model.encoder", "^encoder" },
    { "^vision_model.pre_layrnorm", "^pre_layrnorm" },
    { "^vision_model.post_layernorm", "^post_layernorm" },
    { "^vision_model.head", "^head" },
    { "^text_model.embeddings", "^embeddings" },
    { "^text_model.encoder", "^encoder" },
    { "^text_model.final_layer_norm", "^final_layer_norm" },
    { "^text_model.head", "^head" },
    { "^vision_encoder", "^vision_model" }, /* tipsv2 */
    { "^text_encoder", "^text_model" },
    { "vision_tower.timm_model", "vision_tower" },

    /* kimi_k25 counts from 0 on disk and from 1 in Python, so no rule may join its layers alone. */
    { "^vision_tower.encoder.blocks.#.mlp.fc0", "^model.vision_tower.layers.#.mlp.fc1" },
    { "^vision_tower.encoder.blocks.#.mlp.fc1", "^model.vision_tower.layers.#.mlp.fc2" },
    { "^vision_tower.encoder.blocks.#.norm0", "^model.vision_tower.layers.#.norm1" },
    { "^vision_tower.encoder.blocks.#.norm1", "^model.vision_tower.layers.#.norm2" },
    { "^vision_tower.encoder.blocks.#.wo", "^model.vision_tower.layers.#.attn.proj" },
    { "^mm_projector.proj.0", "^model.mm_projector.in_proj" },
    { "^mm_projector.proj.2", "^model.mm_projector.out_proj" },

    /* Mixtures of experts: all but the experts themselves */
    { "block_sparse_moe", "mlp" },
    { "block_sparse_moe.router.layer", "block_sparse_moe.router" },
    { "block_sparse_moe.e_score_correction_bias", "mlp.gate.e_score_correction_bias" },
    { "block_sparse_moe.gate", "mlp.router" }, /* phimoe */
    { "mlp.router.gate", "mlp.gate" },
    { "moe.gate", "mlp.gate" },
    { "moe.router_bias", "mlp.gate.e_score_correction_bias" },
    { "mlp.gate.bias", "mlp.gate.e_score_correction_bias" },
    { "mlp.gate.expert_bias", "mlp.gate.e_score_correction_bias" },
    { "mlp.expert_bias", "mlp.e_score_correction_bias" },
    { "mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias" },
    { "mlp.experts.e_score_correction_bias", "mlp.gate.e_score_correction_bias" },
    { "mlp.moe_statics", "mlp.gate.moe_statics" },
    { "mlp.shared_expert", "mlp.shared_experts" },
    { "mlp.shared_mlp", "mlp.shared_experts" },
    { "share_expert", "mlp.shared_experts" },
    { "shared_experts.w1", "shared_experts.gate_proj" },
    { "shared_experts.w2", "shared_experts.down_proj" },
    { "shared_experts.w3", "shared_experts.up_proj" },

    /* Projectors */
    { "spatial_linear.0", "spatial_linear.fc1" }, /* ernie4_5_vl_moe */
    { "spatial_linear.2", "spatial_linear.fc2" },
    { "temporal_linear.0", "temporal_linear.fc1" },
    { "temporal_linear.2", "temporal_linear.fc2" },

    /* Parts of a layer */
    { "attn", "self_attn" },
    { "attention", "self_attn" },
    { "ffn", "mlp" },
    { "feed_forward", "mlp" },
    { "attn_norm", "input_layernorm" },
    { "attention_norm", "input_layernorm" },
    { "attention_layer_norm", "input_layernorm" },
    { "ffn_norm", "post_attention_layernorm" },
    { "mlp_norm", "post_attention_layernorm" },
    { "feedforward_layer_norm", "post_attention_layernorm" },
    { "post_attn_norm", "post_self_attn_layernorm" },
    { "post_ffn_norm", "post_mlp_layernorm" },
    { "post_mlp_layernorm", "mlp.post_mlp_layernorm" },
    { "out_proj", "o_proj" },
    { "attention.dense", "self_attn.o_proj" },
    { "self_attn.to_q", "self_attn.q_proj" },
    { "self_attn.to_k", "self_attn.k_proj" },
    { "self_attn.to_v", "self_attn.v_proj" },
    { "self_attn.to_out", "self_attn.o_proj" },
    { "self_attn.norm_q", "self_attn.q_norm" },
    { "self_attn.norm_k", "self_attn.k_norm" },
    { "self_attn.q_b_proj", "self_attn.q_gate_proj" },
    { "self_attn.gate_proj", "self_attn.g_proj" },
    { "self_attn.linear_gate", "self_attn.gate_proj" },
    { "self_attn.learnable_sink_param", "self_attn.sinks" },
    { "self_attn.attention_sink_bias", "self_attn.sinks" },
    { "self_attn.softmax_offset", "self_attn.sinks" },
    { "self_attn.f_proj", "self_attn.forget_gate.f_proj" },
    { "self_attn.f_a_proj", "self_attn.forget_gate.f_a_proj" },
    { "self_attn.f_b_proj", "self_attn.forget_gate.f_b_proj" },
    { "self_attn.dt_bias", "self_attn.forget_gate.dt_bias" },
    { "self_attn.A_log", "self_attn.forget_gate.A_log" },
    { "self_attn.index_q_proj", "self_attn.indexer.q_proj" },
    { "self_attn.index_k_proj", "self_attn.indexer.k_proj" },
    { "self_attn.index_q_norm", "self_attn.indexer.q_norm" },
    { "self_attn.index_k_norm", "self_attn.indexer.k_norm" },
    { "attn.wq_a", "self_attn.q_a_proj" }, /* deepseek_v4 */
    { "attn.wq_b", "self_attn.q_b_proj" },
    { "attn.wkv", "self_attn.kv_proj" },
    { "attn.wo_a", "self_attn.o_a_proj" },
    { "attn.wo_b", "self_attn.o_b_proj" },
    { "attn.wq_du", "self_attn.q_proj" }, /* inkling */
    { "attn.wk_dv", "self_attn.k_proj" },
    { "attn.wv_dv", "self_attn.v_proj" },
    { "attn.wr_du", "self_attn.r_proj" },
    { "attn.wo_ud", "self_attn.o_proj" },
    { "mlp.w2_md", "mlp.down_proj" },
    { "mlp.up_proj", "mlp.fc1" }, /* cosmos3_edge */
    { "mlp.down_proj", "mlp.fc2" },
    { "W_down", "mlp.fc1" }, /* axk2 */
    { "W_up", "mlp.fc2" },
    { "mlp.dense_h_to_4h", "mlp.fc1" }, /* hunyuan_vl */
    { "mlp.dense_4h_to_h", "mlp.fc2" },
    { "ff0", "fc1" }, /* timesfm2_5 */
    { "ff1", "fc2" },
    { "self_attn.linear_q", "self_attn.q_proj" }, /* cohere_asr */
    { "self_attn.linear_k", "self_attn.k_proj" },
    { "self_attn.linear_v", "self_attn.v_proj" },
    { "self_attn.linear_out", "self_attn.o_proj" },
    { "self_attn.linear_pos", "self_attn.relative_k_proj" },
    { "transf_decoder._decoder", "decoder" },
    { "first_sub_layer.query_net", "self_attn.q_proj" },
    { "first_sub_layer.key_net", "self_attn.k_proj" },
    { "first_sub_layer.value_net", "self_attn.v_proj" },
    { "first_sub_layer.out_projection", "self_attn.o_proj" },
    { "second_sub_layer.query_net", "encoder_attn.q_proj" },
    { "second_sub_layer.key_net", "encoder_attn.k_proj" },
    { "second_sub_layer.value_net", "encoder_attn.v_proj" },
    { "second_sub_layer.out_projection", "encoder_attn.o_proj" },
    { "third_sub_layer.dense_in", "mlp.fc1" },
    { "third_sub_layer.dense_out", "mlp.fc2" },
    { "encoder.layers", "encoder.text_model.layers" }, /* t5gemma2 */

    /* ViT, BEiT, DeiT, DINOv2, Swin, SegFormer, DETR */
    { "encoder.layer", "layers" },
    { "encoder.layer", "encoder.layers" }, /* altclip */
    { "attention.attention.query", "attention.q_proj" },
    { "attention.attention.key", "attention.k_proj" },
    { "attention.attention.value", "attention.v_proj" },
    { "attention.self.query", "attention.q_proj" },
    { "attention.self.key", "attention.k_proj" },
    { "attention.self.value", "attention.v_proj" },
    { "attention.output.dense", "attention.o_proj" },
    { "attention.output", "attention.o_proj" },
    { "attention.attention.q_bias", "attention.attention.query.bias" }, /* videomae */
    { "attention.attention.v_bias", "attention.attention.value.bias" },
    { "attention.self.sr", "attention.sequence_reduction.sequence_reduction" },
    { "attention.self.layer_norm", "attention.sequence_reduction.layer_norm" },
    { "attention.self.relative_position_bias_table",
      "attention.relative_position_bias.relative_position_bias_table" },
    { "intermediate.dense", "mlp.fc1" },
    { "output.dense", "mlp.fc2" },
    { "mlp.dense1", "mlp.fc1" },
    { "mlp.dense2", "mlp.fc2" },
    { "mlp.weights_out", "mlp.down_proj" },
    { "layer_norm_1", "layernorm_before" },
    { "layer_norm_2", "layernorm_after" },
    { "encoder.block.#", "stages.#.blocks" },
    { "encoder.patch_embeddings.#", "stages.#.patch_embeddings" },
    { "encoder.layer_norm.#", "stages.#.layer_norm" },
    { "decode_head.linear_c", "decode_head.linear_projections" },
    { "fc1", "mlp.fc1" },
    { "fc2", "mlp.fc2" },
    { "backbone.conv_encoder", "backbone" },
    { "encoder.encoder.#.layers", "encoder.aifi.#.layers" },

    /* nomic_bert, jina_embeddings_v3, gte */
    { "encoder.layers", "layers" },
    { "emb_ln", "embeddings.LayerNorm" },
    { "attn.out_proj", "self_attn.o_proj" },
    { "attention.o_proj", "self_attn.o_proj" },
    { "encoder.layers.#.mixer.out_proj", "layers.#.self_attn.o_proj" },
    { "mlp.fc11", "mlp.up_proj" },
    { "mlp.fc12", "mlp.gate_proj" },
    { "encoder.layers.#.norm1", "layers.#.post_attention_layernorm" },
    { "encoder.layers.#.norm2", "layers.#.post_mlp_layernorm" },
    { "attn_ln", "post_attention_layernorm" },
    { "mlp_ln", "post_mlp_layernorm" },

    /* Heads of a BERT and its kin, whose bias has two names */
    { "predictions.decoder.bias", "predictions.bias" },
    { "lm_head.decoder.bias", "lm_head.bias" },

    /* Files of older libraries */
    { "LayerNorm.gamma", "LayerNorm.weight" },
    { "LayerNorm.beta", "LayerNorm.bias" },
    { "weight_g", "parametrizations.weight.original0" },
    { "weight_v", "parametrizations.weight.original1" },
};
const size_t naming_rule_count = sizeof(naming_rules) / sizeof(naming_rules[0]);

/* base_model_prefix of transformers' models, and what libraries put around a model. */
const char *const naming_prefixes[] = {
    "model",      "transformer", "language_model",
    "backbone",   "bert",        "roberta",
    "distilbert", "electra",     "albert",
    "deberta",    "mpnet",       "longformer",
    "esm",        "gpt_neox",    "biogpt",
    "vit",        "deit",        "beit",
    "dinov2",     "swin",        "segformer",
    "convnext",   "videomae",    "wav2vec2",
    "hubert",     "wavlm",       "new",
    "vlm",        "thinker",     "timm_model",

    "module",     "_orig_mod",   "llm",

};
const size_t naming_prefix_count = sizeof(naming_prefixes) / sizeof(naming_prefixes[0]);

const char *const naming_wrappers[] = {
    "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod",
    "base_model",           "pretrained_model",
};
const size_t naming_wrapper_count = sizeof(naming_wrappers) / sizeof(naming_wrappers[0]);
