"$LORAFOLD" merge base -a a -o out --save-method merged_4bit
