"$LORAFOLD" merge base -a a -o out --save-method merged_4bit --quant-type int4
