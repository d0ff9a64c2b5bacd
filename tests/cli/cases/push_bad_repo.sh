mkdir out; : > out/model.safetensors
"$LORAFOLD" push out no//name
