mkdir out; : > out/model.safetensors
"$LORAFOLD" push out org/name
