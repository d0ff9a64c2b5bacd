"$LORAFOLD" merge base -a a -o out --variant fp16 --save-method lora
