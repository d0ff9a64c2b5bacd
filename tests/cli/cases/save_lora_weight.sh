"$LORAFOLD" merge --save-method lora -a one:0.5 -o out
