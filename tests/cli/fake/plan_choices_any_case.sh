"$LORAFOLD" plan base -a a --dtype Bfloat16 --tied SHARED --save-method Merged-16bit --device CPU --io Threads
