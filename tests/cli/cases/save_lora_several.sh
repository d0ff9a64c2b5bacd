"$LORAFOLD" merge --save-method lora -a one -a two -o out
