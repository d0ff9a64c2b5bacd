"$LORAFOLD" plan --model_name_or_path=base --adapter_path one --lora two:1 --export_dir=out --torch_dtype FP16 \
    --exist_ok --max_shard_size 1GB --trust-remote-code --allow_unused
