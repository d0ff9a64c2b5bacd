"$LORAFOLD" plan base -a one -a two:0.5 -o out --tokenizer tok --dtype bf16 --tied shared --max-shard-size 200MB \
    --memory 64MiB --threads 3 --clone always --overwrite --allow-unused --allow-nonfinite --strict --device cpu \
    --save-method merged_16bit --safe-serialization --io threads --direct off --kernels scalar
