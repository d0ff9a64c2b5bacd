"$LORAFOLD" merge base -a a -o out --save-method gguf
